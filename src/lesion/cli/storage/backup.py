"""Backups of the server's own storage: lesion backup --help."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lesion.backup.backup_manifest import BackupManifest, verify_backup
from lesion.backup.creation import create_backup
from lesion.backup.restore import restore_backup
from lesion.cli.storage.storage_settings import command_line_actor, configured_storage, parse, verb_parser
from lesion.cli.text_table import print_rows
from lesion.core.cli_errors import cli_errors

_EXAMPLES = """\
  lesion backup create /backups/lesion storage=cluster
  lesion backup verify /backups/lesion
  lesion backup restore /backups/lesion storage=cluster
  LESION_PG_BIN=/usr/lib/postgresql/18/bin lesion backup create /backups/lesion storage=cluster
"""
_RESULTS = {
    "create": "The backup is whole.",
    "verify": "Every file is as it was saved.",
    "restore": "Restored; the champion gives its golden answers. Start the servers and workers again, with the same "
    "identity key as before: it is not in the backup.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return 0; settings such as ``storage=cluster`` may stand anywhere in the command line."""
    options, settings = parse(_parser(), arguments)
    with cli_errors():
        if options.verb == "create":
            manifest = create_backup(configured_storage(settings), options.folder, replace=options.replace)
        elif options.verb == "verify":
            manifest = verify_backup(options.folder)
        else:
            storage = configured_storage(settings)
            manifest = restore_backup(storage, options.folder, command_line_actor(), wipe=options.wipe)
        print_rows([_summary(manifest)])
        print(_RESULTS[options.verb])
    return 0


def _summary(manifest: BackupManifest) -> dict[str, Any]:
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
    parser, verbs = verb_parser("backup", "Backups of the database and the store.", _EXAMPLES)
    create_verb = verbs.add_parser("create", help="make a backup, or bring the one in the folder up to date")
    create_verb.add_argument(
        "--replace", action="store_true", help="even if the backup in the folder is of another installation"
    )
    verify_verb = verbs.add_parser("verify", help="read every file and compare it with its hash")
    restore_verb = verbs.add_parser("restore", help="restore a backup into an empty database and store")
    restore_verb.add_argument("--wipe", action="store_true", help="remove what the database and the store hold now")
    for verb in (create_verb, verify_verb, restore_verb):
        verb.add_argument("folder", type=Path)
    return parser
