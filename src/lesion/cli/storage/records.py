"""Records of answers on the server's own storage: lesion records --help."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lesion.cli.storage.storage_settings import command_line_actor, open_storage, parse, verb_parser
from lesion.cli.text_table import print_rows
from lesion.core.cli_errors import cli_errors
from lesion.core.files import bytes_sha256
from lesion.database.storage import Storage
from lesion.identity.identity_key import open_pseudonyms
from lesion.identity.pseudonyms import Pseudonyms
from lesion.records.answer_record import AnswerRecord
from lesion.records.chain import ChainKey
from lesion.records.chain_check import verify
from lesion.records.queries import list_records, newest_record
from lesion.records.reproduction import check_image, reproduce
from lesion.records.retention import delete_records
from lesion.registry.registry import Registry

_EXAMPLES = """\
  lesion records list --image scan.png
  lesion records show 5a0c9e1f7b3d4c2e8f6a0b1c2d3e4f50
  lesion records verify storage=cluster
  lesion records reproduce 5a0c9e1f7b3d4c2e8f6a0b1c2d3e4f50 scan.png
  lesion records delete --image scan.png --reason "the patient asked for it"
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return 1 if records were changed or an answer is not the same, else 0."""
    options, settings = parse(_parser(), arguments)
    with cli_errors():
        storage = open_storage(settings)
        result, passed = _run(storage, options, open_pseudonyms(storage))
        if options.json:
            print(json.dumps(result, indent=2, ensure_ascii=False))
        else:
            print_rows(result if isinstance(result, list) else [result])
    return 0 if passed else 1


def _run(storage: Storage, options: argparse.Namespace, pseudonyms: Pseudonyms) -> tuple[Any, bool]:
    """Run a verb; return its result, and whether all is as it should be."""
    match options.verb:
        case "list":
            image = _hash(pseudonyms, options.image)
            with storage.reading() as session:
                found = list_records(session, image=image, after=options.after, limit=options.limit)
            return [{"id": number, **_summary(record)} for number, record in found], True
        case "show":
            return asdict(_record(storage, options.request_id)), True
        case "verify":
            with storage.reading() as session:
                verified = verify(session, ChainKey(pseudonyms.record_key))
            faults = [f"chain {fault.chain}, record {fault.number}: {fault.fault}" for fault in verified.faults]
            counts = {"chains": verified.chains, "records": verified.records, "deleted": verified.deleted}
            return counts | {"faults": faults}, not faults
        case "reproduce":
            record, data = _record(storage, options.request_id), options.image.read_bytes()
            check_image(record, data, pseudonyms)
            found_again = reproduce(record, Registry(storage).fetch(record.model_version), data)
            return asdict(found_again), found_again.same
        case _:
            with storage.session() as session:
                named = {"request_id": options.request_id or "", "image": _hash(pseudonyms, options.image)}
                deleted = delete_records(session, command_line_actor(), options.reason, **named)
            return {"deleted": deleted}, True


def _record(storage: Storage, request_id: str) -> AnswerRecord:
    with storage.reading() as session:
        return newest_record(session, request_id)


def _hash(pseudonyms: Pseudonyms, image: Path | None) -> str:
    return "" if image is None else pseudonyms.sent(bytes_sha256(image.read_bytes()))


def _summary(record: AnswerRecord) -> dict[str, object]:
    return {
        "at": record.at,
        "request_id": record.request_id,
        "model_version": record.model_version,
        "predicted_class": record.predicted_class,
        "probability": max(record.probabilities),
        "in_domain": record.in_domain,
        "abstain_reason": record.abstain_reason,
        "key_id": record.key_id,
    }


def _parser() -> argparse.ArgumentParser:
    parser, verbs = verb_parser("records", "Records of what the model answered.", _EXAMPLES)
    parser.add_argument("--json", action="store_true", help="print JSON")
    verb = verbs.add_parser("list", help="records, the oldest first")
    verb.add_argument("--image", type=Path, help="only answers to this file")
    verb.add_argument("--after", type=int, default=0, help="the last id of the page before")
    verb.add_argument("--limit", type=int, default=100, help="how many")
    verb = verbs.add_parser("show", help="all that was recorded of one answer")
    verb.add_argument("request_id")
    verbs.add_parser("verify", help="check that no record was changed and none is missing")
    verb = verbs.add_parser("reproduce", help="answer again, and compare to the last bit")
    verb.add_argument("request_id")
    verb.add_argument("image", type=Path, help="the file that was sent")
    verb = verbs.add_parser("delete", help="delete what was recorded of a request or of an image")
    which = verb.add_mutually_exclusive_group(required=True)
    which.add_argument("--request-id")
    which.add_argument("--image", type=Path, help="the file that was sent")
    verb.add_argument("--reason", required=True, help="why, for the audit log")
    return parser
