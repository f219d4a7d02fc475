"""The command line of ``scripts/backup.py``: make, verify and restore backups of the server's own storage."""

import argparse
import getpass
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lesion.backup.backup_manifest import verify
from lesion.backup.creation import create
from lesion.backup.restore import restore
from lesion.cli.models import named_storage, print_rows
from lesion.core.cli_errors import cli_errors

_SETTING = re.compile(r"(storage|storage_root|paths)(\.\w+)*=")
_EXAMPLES = """\
  python scripts/backup.py create /backups/lesion storage=cluster
  python scripts/backup.py verify /backups/lesion
  python scripts/backup.py restore /backups/lesion storage=cluster
  LESION_PG_BIN=/usr/lib/postgresql/18/bin python scripts/backup.py create /backups/lesion storage=cluster
"""


def main(configs: Path, arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        configs: The folder of the configs.
        arguments: The command line; settings such as ``storage=cluster`` may stand anywhere in it.

    Returns:
        0. What is refused, or found damaged, exits with 2.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    settings = [argument for argument in given if _SETTING.match(argument)]
    options = _parser().parse_args([argument for argument in given if argument not in settings])
    with cli_errors():
        if options.verb == "create":
            manifest = create(named_storage(configs, settings), options.folder, replace=options.replace)
        elif options.verb == "verify":
            manifest = verify(options.folder)
        else:
            storage = named_storage(configs, settings)
            manifest = restore(storage, options.folder, f"cli:{getpass.getuser()}", wipe=options.wipe)
        print_rows([_summary(manifest)])
        print(
            {"create": "The backup is whole.", "verify": "Every file is as it was saved."}.get(options.verb, _RESTORED)
        )
    return 0


_RESTORED = "Restored; the champion gives its golden answers. Start the servers and workers again."


def _summary(manifest: Mapping[str, Any]) -> dict[str, Any]:
    size = sum(facts["bytes"] for facts in manifest["files"].values())
    return {
        "taken": manifest["taken_at"],
        "Lesion": f"{manifest['lesion']}, database revision {manifest['revision']}",
        "champion": manifest["champion"],
        **manifest["counts"],
        "files": len(manifest["files"]),
        "MB": round(size / 1e6, 1),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Backups of the database and the store. Settings such as storage=cluster may stand anywhere.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    made = verbs.add_parser("create", help="make a backup, or bring the one in the folder up to date")
    made.add_argument(
        "--replace", action="store_true", help="though the backup in the folder is of another installation"
    )
    checked = verbs.add_parser("verify", help="read every file and compare it with its hash")
    back = verbs.add_parser("restore", help="bring a backup back into an empty database and store")
    back.add_argument("--wipe", action="store_true", help="remove what the database and the store have now")
    for verb in (made, checked, back):
        verb.add_argument("folder", type=Path)
    return parser
