"""The commands of Lesion: how they read Hydra's command line, and how one process starts another command."""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from lesion.core.cli_errors import cli_errors

if TYPE_CHECKING:  # servers import this module, and few of them need Hydra
    from omegaconf import DictConfig

CONFIGS = Path(str(files("lesion") / "configs"))  # a folder of the package, in a checkout and in a wheel


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
    try:
        with cli_errors():
            hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(with_whole_command_line)()
    finally:
        sys.argv = command_line


def quote_hydra_value(value: str) -> str:
    r"""Quote the value of a setting, such as a path, for Hydra's command line, whatever characters it contains.

    >>> print("paths.data=" + quote_hydra_value("/data/it's here"))
    paths.data='/data/it\'s here'
    """
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
