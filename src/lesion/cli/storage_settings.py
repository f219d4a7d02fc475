"""Hydra settings on the command lines of models, keys and backup, and the storage that they name."""

import argparse
import getpass
import re
import sys
from collections.abc import Sequence
from typing import TypeAlias

from lesion.core.commands import CONFIGS, quote_texts
from lesion.core.errors import ConfigError
from lesion.database.storage import Storage

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
_SETTING = re.compile(r"(storage|storage_root|paths)(\.\w+)*=")


def verb_parser(command: str, description: str, examples: str) -> tuple[argparse.ArgumentParser, Verbs]:
    """Return the parser of a command with verbs, and the object that verbs are added to."""
    parser = argparse.ArgumentParser(
        prog=f"lesion {command}",
        description=f"{description} Settings such as storage=cluster may stand anywhere.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser, parser.add_subparsers(dest="verb", required=True, metavar="VERB")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Parse a command line (this process's if None) in which settings (``storage=cluster``) may stand anywhere."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    settings = [word for word in words if _SETTING.match(word)]
    return parser.parse_args([word for word in words if word not in settings]), settings


def open_storage(settings: Sequence[str]) -> Storage:
    """Return the storage of ``configs/loop.yaml`` with overrides, its tables up to date; or raise a ConfigError."""
    storage = configured_storage(settings)
    storage.upgrade()
    return storage


def configured_storage(settings: Sequence[str]) -> Storage:
    """Return the storage of ``configs/loop.yaml`` with overrides, its tables as they are; or raise a ConfigError."""
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("loop", quote_texts(settings))
    if not config.storage:
        raise ConfigError("This command needs a storage. Give storage=local or storage=cluster.")
    storage: Storage = instantiate(config.storage)
    return storage


def command_line_actor() -> str:
    """Return who runs this command, for the audit log."""
    return f"cli:{getpass.getuser()}"
