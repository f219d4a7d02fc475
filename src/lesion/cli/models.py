"""The command line of ``scripts/models.py``: the verbs of the registry, on the same storage as the server."""

import argparse
import getpass
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lesion.catalogue import images
from lesion.core.cli_errors import cli_errors
from lesion.core.errors import ConfigError
from lesion.database.storage import Storage
from lesion.model.bundle import FACTS_FILE, Bundle
from lesion.registry.registry import Registry
from lesion.registry.version_views import deployment_view, image_view, model_summary, model_view

_SETTING = re.compile(r"(storage|storage_root|paths)[.=]")
_REASON = "why, for the ledger and the audit log"
_EXAMPLES = """\
  python scripts/models.py import outputs/brain_tumor_mri/2025-11-23_19-00-00
  python scripts/models.py list
  python scripts/models.py promote 3f9a0c41d2be --reason "better on the new scanner, see report"
  python scripts/models.py rollback --reason "too many false alarms" storage=cluster
"""


def main(configs: Path, arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        configs: The folder of the configs.
        arguments: The command line; settings such as ``storage=cluster`` may stand anywhere in it.

    Returns:
        0. What is refused exits with 2.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    settings = [argument for argument in given if _SETTING.match(argument)]
    options = _parser().parse_args([argument for argument in given if argument not in settings])
    with cli_errors():
        storage = open_storage(configs, settings)
        result, rows = _VERBS[options.verb](storage, options)
        if options.json:
            print(json.dumps(result, indent=2, ensure_ascii=False))
        else:
            print_rows(rows)
    return 0


def open_storage(configs: Path, settings: Sequence[str]) -> Storage:
    """Return the storage of ``configs/loop.yaml`` with overrides, its tables up to date.

    Raises:
        ConfigError: It cannot be used, or there is none.
    """
    storage = named_storage(configs, settings)
    storage.upgrade()
    return storage


def named_storage(configs: Path, settings: Sequence[str]) -> Storage:
    """Return the storage of ``configs/loop.yaml`` with overrides as it is: its tables are neither made nor upgraded.

    Raises:
        ConfigError: There is none.
    """
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    with initialize_config_dir(str(configs.resolve()), version_base="1.3"):
        config = compose("loop", list(settings))
    if not config.storage:
        raise ConfigError("These commands need a storage. Give storage=local or storage=cluster.")
    storage: Storage = instantiate(config.storage)
    return storage


def import_run(storage: Storage, run: Path, actor: str, reason: str) -> dict[str, Any]:
    """Take a training run in: its images become the first snapshot, its bundle a version, the first one the champion.

    Done again it changes nothing; interrupted, it goes on.

    Args:
        storage: The loop's database and files.
        run: The run's folder, or its bundle's.
        actor: Who imports it.
        reason: Why, for the ledger.

    Returns:
        The version, the snapshot, the number of images and whether it is the champion.

    Raises:
        ConfigError: The folder is not a whole run, or its bundle was made of other data than its manifest says.
        LesionError: What :func:`lesion.catalogue.import_run.import_manifest` refuses.
    """
    from lesion.catalogue.import_run import import_manifest
    from lesion.data.manifest import Manifest

    run = run.resolve().parent if (run / FACTS_FILE).is_file() else run
    bundle = Bundle.open(run / "bundle")
    if not (run / "manifest.parquet").is_file():
        raise ConfigError(
            f"'{run}' has a bundle and no manifest.parquet, but retraining needs the data that the bundle was made of. "
            "Import the whole run's folder, as scripts/train.py wrote it.",
            code="manifest_missing",
        )
    manifest = Manifest.load(run / "manifest.parquet")
    if bundle.facts.get("data", {}).get("fingerprint") != manifest.fingerprint:
        raise ConfigError(
            f"The bundle in '{run}' was made of other data than its manifest.parquet lists.", code="manifest_differs"
        )
    if tuple(manifest.classes) != bundle.classes:
        raise ConfigError(f"The bundle in '{run}' has other classes than its manifest.", code="manifest_differs")
    snapshot = import_manifest(storage, manifest)
    registry = Registry(storage)
    version = registry.register(bundle.path, snapshot_id=snapshot, actor=actor)
    champion = registry.champion() or registry.deploy_first(version, actor, reason)
    return {
        "version": version,
        "snapshot_id": snapshot,
        "images": len(manifest.table),
        "champion": champion.version == version,
    }


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows with the columns of the first one, aligned; of one row alone a line for each member."""
    if not rows:
        print("There is nothing yet.")
        return
    texts = [[_text(value) for value in row.values()] for row in rows]
    names = list(rows[0])
    table = [list(pair) for pair in zip(names, texts[0], strict=True)] if len(rows) == 1 else [names, *texts]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


Shown = tuple[Any, Sequence[Mapping[str, Any]]]  # for programs, for people


def _import(storage: Storage, options: argparse.Namespace) -> Shown:
    result = import_run(storage, options.run, _actor(), options.reason)
    return result, [result]


def _list(storage: Storage, options: argparse.Namespace) -> Shown:
    registry = Registry(storage)
    champion = registry.champion()
    rows = [model_summary(row, champion) for row in registry.models()]
    return rows, rows


def _show(storage: Storage, options: argparse.Namespace) -> Shown:
    registry = Registry(storage)
    view = model_view(registry.model(options.version), registry.champion())
    return view, [view]


def _promote(storage: Storage, options: argparse.Namespace) -> Shown:
    promote = Registry(storage).promote
    row = deployment_view(promote(options.version, _actor(), options.reason, expected=options.expected))
    return row, [row]


def _rollback(storage: Storage, options: argparse.Namespace) -> Shown:
    row = deployment_view(Registry(storage).rollback(_actor(), options.reason, expected=options.expected))
    return row, [row]


def _history(storage: Storage, options: argparse.Namespace) -> Shown:
    rows = [deployment_view(row) for row in Registry(storage).history()]
    return rows, rows


def _lineage(storage: Storage, options: argparse.Namespace) -> Shown:
    with storage.session() as session:
        if len(options.subject) == 64:
            image = image_view(images.existing(session, options.subject))
            versions = images.lineage_of_image(session, options.subject)
            return image | {"versions": versions}, versions or [image]
        found = images.lineage_of_version(session, options.subject, limit=1_000_000 if options.json else 20)
        return found, found["images"] if options.images else [{"version": options.subject, **found["counts"]}]


def _delete_image(storage: Storage, options: argparse.Namespace) -> Shown:
    versions = images.delete_image(storage, options.sha256, _actor(), options.reason)
    row = {"sha256": options.sha256, "status": "deleted", "versions": [each["version"] for each in versions]}
    return {**row, "versions": versions}, [row]


_VERBS: dict[str, Callable[[Storage, argparse.Namespace], Shown]] = {
    "import": _import,
    "list": _list,
    "show": _show,
    "promote": _promote,
    "rollback": _rollback,
    "history": _history,
    "lineage": _lineage,
    "delete-image": _delete_image,
}


def _actor() -> str:
    return f"cli:{getpass.getuser()}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Model versions and the ledger of champions. Settings such as storage=cluster may stand anywhere.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verb = verbs.add_parser("import", help="take in a training run; the first one becomes the champion")
    verb.add_argument("run", type=Path, help="the run's folder, with bundle/ and manifest.parquet")
    verb.add_argument("--reason", default="the first model", help=_REASON)
    verbs.add_parser("list", help="all versions")
    verbs.add_parser("show", help="one version").add_argument("version")
    promote = verbs.add_parser("promote", help="make a version the champion")
    promote.add_argument("version")
    for verb in (promote, verbs.add_parser("rollback", help="go back to the version before")):
        verb.add_argument("--reason", required=True, help=_REASON)
        verb.add_argument("--expected", type=int, metavar="ID", help="of the last row of history when this was decided")
    verbs.add_parser("history", help="every change of champion")
    verb = verbs.add_parser("lineage", help="the images of a version, or the versions that saw an image")
    verb.add_argument("subject", metavar="VERSION|SHA256")
    verb.add_argument("--images", action="store_true", help="list the images of a version, not their counts")
    verb = verbs.add_parser("delete-image", help="remove an image's pixels for good; its tombstone stays")
    verb.add_argument("sha256")
    verb.add_argument("--reason", required=True, help=_REASON)
    return parser
