"""The commands of Lesion: how they read Hydra's command line, and how one process starts another command."""

import functools
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from lesion.core.cli_errors import cli_errors

if TYPE_CHECKING:  # servers import this module, and few of them need Hydra
    from omegaconf import DictConfig

CONFIGS = Path(str(files("lesion") / "configs"))  # a folder of the package, in a checkout and in a wheel
# Settings whose value is text, such as a path or a name, whatever it looks like: 2024 and a=b are names of folders too.
_TEXT_SETTINGS = frozenset({
    "name", "resume", "bundle", "folder", "storage_root", "model.weights", "retrain.script",
    "data.name", "data.root", "data.manifest", "data.group_pattern", "data.cache_dir",
    "data.csv.csv", "data.csv.images", "data.csv.path_column", "data.csv.label_column", "data.csv.label_names",
    "data.csv.group_column", "data.csv.group_pattern",
    "paths.data", "paths.cache", "paths.outputs", "paths.output", "hydra.run.dir", "hydra.sweep.dir",
    "storage.database", "storage.files", "storage.cache",
})  # fmt: skip


def lesion_command(name: str) -> list[str]:
    """Return the command line that starts ``lesion NAME`` with this Python, wherever Lesion is installed."""
    return [sys.executable, "-P", "-m", "lesion", name]  # -P: nothing in the working directory hides a package


def run_with_hydra(
    task: Callable[["DictConfig"], object], config_name: str, arguments: Sequence[str] | None = None
) -> None:
    """Compose a config from a command line and call a function with it; errors become one sentence, see `cli_errors`.

    ``arguments`` follow the command's name; those of this process when None. The last part of the name of the task's
    module is Hydra's name of the job. With ``-m`` the function is called for each combination of values, and a sweep
    ranks by what it returns.
    """
    import hydra

    command_line = sys.argv

    @functools.wraps(task)
    def with_whole_command_line(config: "DictConfig") -> object:
        sys.argv = command_line  # Lightning repeats it to start the other processes of a training
        with cli_errors():  # here too: Hydra prints the settings of a job that raises an error
            return task(config)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints a traceback itself and exits
    if arguments is not None:
        sys.argv = [sys.argv[0], *arguments]
    sys.argv = [sys.argv[0], *quote_texts(sys.argv[1:])]
    try:
        with cli_errors():
            hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(with_whole_command_line)()
    finally:
        sys.argv = command_line


def quote_hydra_value(value: str, *, references: bool = False) -> str:
    r"""Quote the value of a setting, such as a path, for Hydra's command line, whatever characters it contains.

    With ``references``, ``${name}`` stands for the value of another setting; otherwise it is text.

    >>> print("paths.data=" + quote_hydra_value("/data/it's here"))
    paths.data='/data/it\'s here'
    """
    if not references:
        value = re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + "\\${", value)
    # A backslash is itself, but before a quote: there it must be doubled, also before the one that ends the value.
    escaped = re.sub(r"(\\*)('|\Z)", lambda match: 2 * match[1] + ("\\'" if match[2] else ""), value)
    return f"'{escaped}'"


def quote_texts(arguments: Sequence[str]) -> list[str]:
    r"""Quote the values of text settings on a Hydra command line that Hydra would not read as the text they are.

    A shell removes the quotes that a user writes, and Hydra's grammar then takes ``2024`` for a number, and refuses
    ``(patient\d+)``. A leading ``~`` becomes the home folder. Values in quotes of their own, ``null``, interpolations,
    mappings and, with ``-m``, sweeps stay as they are.
    """
    multirun = bool({"-m", "--multirun"} & set(arguments))
    return [_quote_text(argument, multirun) for argument in arguments]


def _quote_text(argument: str, multirun: bool) -> str:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    setting, separator, value = argument.partition("=")
    if not separator or setting.lstrip("+") not in _TEXT_SETTINGS:
        return argument
    try:
        override = OverridesParser.create().parse_override(argument)
        sweep = override.is_sweep_override()
        result = None if sweep else override.value()
        is_text = result is None or isinstance(result, dict) or result == value or value[:1] in "'\""
        is_text = multirun if sweep else is_text
    except HydraException:
        is_text = False
    value = os.path.expanduser(value)  # noqa: PTH111 - Path would change s3://
    return argument if is_text else f"{setting}={quote_hydra_value(value, references=True)}"
