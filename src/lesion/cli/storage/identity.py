"""What the storage keeps of persons, on the server's own storage: lesion identity --help."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from lesion.cli.storage.storage_settings import command_line_actor, open_storage, parse, verb_parser
from lesion.cli.text_table import print_rows
from lesion.core.cli_errors import cli_errors
from lesion.identity.identity_key import open_pseudonyms, replace_key

_EXAMPLES = """\
  lesion identity remove
  lesion identity check storage=cluster
  lesion identity replace-key
"""
_LOST = """\
The storage takes its pseudonyms from this key now. Patients and files that were hashed with the key before are not
recognized any more: an image of a patient who is known already may come to the other side of the split. Later images
are safe among themselves."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return 0; settings such as ``storage=cluster`` may stand anywhere in the command line."""
    options, settings = parse(_parser(), arguments)
    with cli_errors():
        storage = open_storage(settings)
        if options.verb == "remove":
            from lesion.catalogue.identity_removal import remove_identity  # needs pandas

            print_rows([asdict(remove_identity(storage, command_line_actor()))])
            print("Backups that were made before still hold the old files, and caches of other machines may.")
        elif options.verb == "replace-key":
            replace_key(storage, command_line_actor())
            print(_LOST)
        else:
            open_pseudonyms(storage)
            print("The identity key is the one that this storage is used with.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser, verbs = verb_parser("identity", "What the storage keeps of persons; docs/identity.md.", _EXAMPLES)
    verbs.add_parser("remove", help="take what identifies a person from images that an earlier version stored")
    verbs.add_parser("check", help="check that the identity key is the one that the storage is used with")
    verbs.add_parser("replace-key", help="use another key, because the one before is lost")
    return parser
