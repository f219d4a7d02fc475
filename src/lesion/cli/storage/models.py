"""Model versions on the server's own storage: lesion models --help."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lesion.catalogue.first_model import import_run
from lesion.catalogue.images import delete_image, get_image, stored_hash
from lesion.catalogue.lineage import lineage_of_image, lineage_of_version
from lesion.cli.storage.storage_settings import command_line_actor, composed, open_storage, parse, verb_parser
from lesion.cli.text_table import print_rows
from lesion.core.cli_errors import cli_errors
from lesion.database.storage import Storage
from lesion.identity.identity_key import open_pseudonyms
from lesion.model.bundle import Bundle
from lesion.promotion.change_plan import ChangePlan
from lesion.registry import bundle_signatures
from lesion.registry.deployments import champion_row, get_version
from lesion.registry.model_documents import write_documents
from lesion.registry.plan_adoption import adopt, plan_in_force
from lesion.registry.registry import Registry
from lesion.registry.version_views import deployment_view, image_view, model_summary, model_view
from lesion.retraining.jobs import CHOICES
from lesion.retraining.recipe import planned_facts

_SHA256_LENGTH = 64
_IMAGES_AS_TEXT, _IMAGES_AS_JSON = 20, 1_000_000  # how many images of a version are listed at most
_REASON = "why, for the ledger and the audit log"
_EXAMPLES = """\
  lesion models import outputs/brain_tumor_mri/2025-11-23_19-00-00
  lesion models list
  lesion models promote 3f9a0c41d2be --reason "better on the new scanner, see report"
  lesion models rollback --reason "too many false alarms" storage=cluster
  lesion models plan > change_plan.md
  lesion models plan gate.recall_drop=0.03 --adopt --reason "stricter, as the board decided"
  lesion models sign outputs/brain_tumor_mri/2025-11-23_19-00-00 --key key.pem
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return 0; settings such as ``storage=cluster`` may stand anywhere in the command line."""
    options, settings = parse(_parser(), arguments)
    result: Any  # what --json prints
    rows: Any  # the row, rows or text that is printed without it
    with cli_errors():
        if options.verb in ("sign", "verify"):
            result = rows = _run_on_bundle(options)
        elif options.verb == "plan":
            result, rows = _plan(settings, options)
        else:
            result, rows = _run(open_storage(settings), options)
        if options.json:
            print(json.dumps(result, indent=2, ensure_ascii=False))
        elif isinstance(rows, str):
            print(rows)
        else:
            print_rows([rows] if isinstance(rows, Mapping) else rows)
    return 0


def _run(storage: Storage, options: argparse.Namespace) -> tuple[Any, Any]:
    """Run a verb; return what --json prints, and the row or rows that are printed without it."""
    registry = Registry(storage)
    match options.verb:
        case "import":
            result: Any = import_run(storage, options.run, command_line_actor(), options.reason)
        case "list":
            champion = registry.champion()
            result = [model_summary(row, champion) for row in registry.models()]
        case "show":
            result = model_view(registry.model(options.version), registry.champion())
        case "promote":
            row = registry.promote(options.version, command_line_actor(), options.reason, expected=options.expected)
            result = deployment_view(row)
        case "rollback":
            result = deployment_view(registry.rollback(command_line_actor(), options.reason, expected=options.expected))
        case "history":
            result = [deployment_view(row) for row in registry.history()]
        case "documents":
            paths = write_documents(registry, options.version, options.folder)
            result = [{"file": str(path)} for path in paths]
        case "lineage":
            return _lineage(storage, options)
        case "delete-image":
            sha256 = _stored_hash(storage, options.sha256)
            versions = delete_image(storage, sha256, command_line_actor(), options.reason)
            result = {"sha256": sha256, "status": "deleted", "versions": versions}
            return result, result | {"versions": [version["version"] for version in versions]}
    return result, result


def _run_on_bundle(options: argparse.Namespace) -> dict[str, str]:
    folder = options.run / "bundle" if (options.run / "bundle").is_dir() else options.run
    bundle = Bundle.open(folder)
    if options.verb == "sign":
        return {"version": bundle.version, "signature": str(bundle_signatures.sign(bundle, options.key))}
    return {"version": bundle.version, "signer": str(bundle_signatures.verify(bundle, options.signer))}


def _plan(settings: Sequence[str], options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Write the change plan that the champion and these settings give; with ``--adopt`` put it into force first."""
    from hydra.utils import instantiate

    config, storage = composed(settings, "worker"), open_storage(settings, "worker")
    gate, retraining = instantiate(config.gate), instantiate(config.retrain)
    with storage.session() as session:
        champion = get_version(session, champion_row(session).version)
        facts = planned_facts(champion.facts, retraining.trainer, retraining.interpolation_steps)
        plan = ChangePlan.of(facts, gate, CHOICES)
        if options.adopt:
            adopt(session, plan, command_line_actor(), options.reason or "")
        in_force = plan_in_force(session)
    differences = None if in_force is None else plan.differences(in_force)
    status = {
        "sha256": plan.sha256,
        "in_force": None if in_force is None else in_force.sha256,
        "differences": list(differences or ()),
    }
    return status | {"plan": plan.to_json()}, plan.markdown(gate) + _status_section(differences)


def _status_section(differences: Sequence[str] | None) -> str:
    """Return the section of a plan that tells whether it is in force."""
    if differences is None:
        text = "No plan is in force yet. The first comparison by the gate puts its own into force; so does --adopt."
    elif not differences:
        text = "This plan is in force."
    else:
        text = "Another plan is in force; retrainings with these settings are outside it:\n\n"
        text += "\n".join(f"- {difference}" for difference in differences)
    return f"\n## Status\n\n{text}"


def _stored_hash(storage: Storage, sha256: str) -> str:
    pseudonyms = open_pseudonyms(storage)
    with storage.session() as session:
        return stored_hash(session, sha256, pseudonyms)


def _lineage(storage: Storage, options: argparse.Namespace) -> tuple[Any, Any]:
    is_image = len(options.subject) == _SHA256_LENGTH
    sha256 = _stored_hash(storage, options.subject) if is_image else ""
    with storage.session() as session:
        if is_image:
            image = image_view(get_image(session, sha256))
            versions = lineage_of_image(session, sha256)
            return image | {"versions": versions}, versions or image
        limit = _IMAGES_AS_JSON if options.json else _IMAGES_AS_TEXT
        lineage = lineage_of_version(session, options.subject, limit=limit)
        return lineage, lineage["images"] if options.images else {"version": options.subject, **lineage["counts"]}


def _parser() -> argparse.ArgumentParser:
    parser, verbs = verb_parser("models", "Model versions and the ledger of champions.", _EXAMPLES)
    parser.add_argument("--json", action="store_true", help="print JSON")
    verb = verbs.add_parser("import", help="import a training run; the first one becomes the champion")
    verb.add_argument("run", type=Path, help="the run's folder, with bundle/ and manifest.parquet")
    verb.add_argument("--reason", default="the first model", help=_REASON)
    verb = verbs.add_parser("sign", help="sign a run's bundle, so that others know where it comes from")
    verb.add_argument("run", type=Path, help="the folder of the run, or of its bundle")
    verb.add_argument(
        "--key", type=Path, required=True, help="a private Ed25519 key: a PEM file, as of openssl genpkey"
    )
    verb = verbs.add_parser("verify", help="tell who signed a run's bundle")
    verb.add_argument("run", type=Path, help="the folder of the run, or of its bundle")
    verb.add_argument("--signer", type=Path, required=True, nargs="+", help="public keys of those who are trusted")
    plan = verbs.add_parser("plan", help="the change plan: what retrainings may change, and how it is proved")
    plan.add_argument("--adopt", action="store_true", help="put this plan into force")
    plan.add_argument("--reason", help="why it is adopted, for the audit log")
    verbs.add_parser("list", help="all versions")
    verbs.add_parser("show", help="one version").add_argument("version")
    promote = verbs.add_parser("promote", help="make a version the champion")
    promote.add_argument("version")
    for verb in (promote, verbs.add_parser("rollback", help="bring back the version before")):
        verb.add_argument("--reason", required=True, help=_REASON)
        verb.add_argument(
            "--expected", type=int, metavar="ID", help="the id of the last row of history when this was decided"
        )
    verbs.add_parser("history", help="every change of champion")
    verb = verbs.add_parser("documents", help="write a version's model card, data sheet and CLAIM checklist")
    verb.add_argument("version")
    verb.add_argument("--folder", type=Path, default=Path(), help="where they are written; here by default")
    verb = verbs.add_parser("lineage", help="the images of a version, or the versions that saw an image")
    verb.add_argument("subject", metavar="VERSION|SHA256")
    verb.add_argument("--images", action="store_true", help="list the images of a version, not their counts")
    verb = verbs.add_parser("delete-image", help="remove an image's pixels for good; its row stays as a tombstone")
    verb.add_argument("sha256")
    verb.add_argument("--reason", required=True, help=_REASON)
    return parser
