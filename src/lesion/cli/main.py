"""The command ``lesion``: its first argument names a command, and the others belong to that command."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, NoReturn

from lesion.core.version import __version__

_USAGE = 2
_HELP = """\
usage: lesion COMMAND ...

From a folder of labeled images to an explained, calibrated and served diagnosis model.

{}

lesion COMMAND --help explains a command. Settings of train, serve, worker and prepare are Hydra's:
  lesion train experiment=phantom_mri trainer.max_epochs=5
  lesion train --config-dir my_configs experiment=my_experiment"""


class _Command(NamedTuple):
    module: str
    summary: str
    extra: str  # of the package: what has to be installed for this command


_COMMANDS = {
    "train": _Command("train", "train, evaluate, explain and bundle a classifier", "train"),
    "predict": _Command("predict.command", "predict image files with a bundle", "serve"),
    "serve": _Command("serve", "serve a bundle or the champion over HTTP", "serve"),
    "worker": _Command("worker", "run retrainings", "train"),
    "ui": _Command("ui", "show the web page of a running server", "ui"),
    "models": _Command("storage.models", "import, list, promote and roll back models", "train"),
    "keys": _Command("storage.keys", "make, list and revoke API keys", "serve"),
    "records": _Command("storage.records", "find, verify and reproduce what was answered", "serve"),
    "backup": _Command("storage.backup", "back up, verify and restore the database and the store", "serve"),
    "identity": _Command("storage.identity", "take what identifies a person from stored images", "train"),
    "prepare": _Command("prepare", "make a storage ready: tables, keys and the first model", "train"),
    "retrain": _Command("retrain", "ask a running server for a retraining", "ui"),
    "download": _Command("download", "download or verify a reference dataset", "train"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; 2 if there is no such command, or it needs a missing package."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help", "--version"):
        summaries = "\n".join(f"  {name:9} {command.summary}" for name, command in _COMMANDS.items())
        print(f"lesion {__version__}" if name == "--version" else _HELP.format(summaries))
        return 0
    command = _COMMANDS.get(name)
    if command is None:
        print(f"lesion has no command {name!r}. Use one of {', '.join(_COMMANDS)}.", file=sys.stderr)
        return _USAGE
    try:
        status: int = import_module(f"lesion.cli.{command.module}").main(rest)
    except ModuleNotFoundError as error:
        if os.environ.get("LESION_TRACEBACK") == "1" or (error.name or "").partition(".")[0] in ("", "lesion", "serve"):
            raise
        print(
            f"lesion {name} needs {error.name}, which is not installed: pip install 'lesion[{command.extra}]'.",
            file=sys.stderr,
        )
        return _USAGE
    return status


def run_script() -> NoReturn:
    """Run the command that the running script of ``scripts/`` is named after, and exit with its status."""
    script = Path(sys.argv[0]).resolve()
    # That folder has a serve.py, which would hide the package serve.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != script.parent]
    sys.exit(main([script.stem, *sys.argv[1:]]))
