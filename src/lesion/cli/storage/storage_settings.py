"""Hydra settings on the command lines of models, keys and backup, and the storage that they name."""

import argparse
import getpass
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from lesion.core.commands import CONFIGS, quote_texts
from lesion.core.errors import ConfigError
from lesion.database.storage import Storage

if TYPE_CHECKING:  # Hydra is loaded when a config is composed
    from omegaconf import DictConfig

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
_SETTING = re.compile(r"(storage|storage_root|paths|gate|retrain)(\.\w+)*=")


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


def open_storage(settings: Sequence[str], config_name: str = "loop") -> Storage:
    """Return the storage of a config in ``configs`` with overrides, its tables up to date; or raise a ConfigError."""
    storage = configured_storage(settings, config_name)
    storage.upgrade()
    return storage


def configured_storage(settings: Sequence[str], config_name: str = "loop") -> Storage:
    """Return the storage of a config in ``configs`` with overrides, its tables as they are; or raise a ConfigError."""
    from hydra.utils import instantiate

    config = composed(settings, config_name)
    if not config.storage:
        raise ConfigError("This command needs a storage. Give storage=local or storage=cluster.")
    storage: Storage = instantiate(config.storage)
    return storage


def composed(settings: Sequence[str], config_name: str) -> "DictConfig":
    """Return a config of ``configs`` with overrides."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose(config_name, quote_texts(settings))


def command_line_actor() -> str:
    """Return who runs this command, for the audit log."""
    return f"cli:{getpass.getuser()}"
