"""What every command does alike: errors for people, finding bundles, and settings for other commands."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lesion.core.errors import ConfigError, LesionError

USAGE = 2  # the exit status of a command that was used wrongly
STOPPED = 130  # that of a command that Ctrl-C ended


@contextmanager
def cli_errors(checkpoint: Path | None = None) -> Iterator[None]:
    """Turn what went wrong into one sentence on stderr and exit status 2; ``LESION_TRACEBACK=1`` keeps the traceback.

    That holds for a ``LesionError``, a setting that Hydra refuses, and a file or disk that does not do what is asked of
    it; anything else is a mistake of ours. Ctrl-C ends a command with status 130. Hydra wraps what a ``_target_``
    raises, so causes are looked at too.

    Args:
        checkpoint: What a command that is stopped can go on from, if it has been written by then.
    """
    try:
        yield
    except BrokenPipeError:  # whose reader has gone: the command's own business
        raise
    except KeyboardInterrupt:
        kept = checkpoint is not None and checkpoint.is_file()
        print(f"stopped; go on with resume={checkpoint}" if kept else "stopped", file=sys.stderr)
        raise SystemExit(STOPPED) from None
    except Exception as error:
        known = _known(error)
        if known is None or os.environ.get("LESION_TRACEBACK") == "1":
            raise
        print(f"error ({known.code}): {known.message}", file=sys.stderr)
        raise SystemExit(USAGE) from None


def run_with_hydra(main: Callable[[], object]) -> None:
    """Call what ``hydra.main`` made, so that what it refuses before the command begins becomes a sentence too."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # it would print a traceback itself and exit
    with cli_errors():
        main()


def latest_bundle(outputs: Path = Path("outputs")) -> Path:
    """Return the newest bundle below a folder of runs.

    Raises:
        LesionError: There is none.
    """
    bundles = sorted(outputs.glob("*/*/bundle/bundle.json"), key=lambda path: path.stat().st_mtime)
    if not bundles:
        raise LesionError(
            f"There is no bundle in '{outputs}'. Train one first (scripts/train.py), or name one.",
            code="bundle_missing",
        )
    return bundles[-1].parent


def _known(error: BaseException) -> LesionError | None:
    """Return what an error says to people, if it is of a kind that they can do something about."""
    own: BaseException | None = error
    while own is not None:
        if isinstance(own, LesionError):
            return own
        own = own.__cause__ or own.__context__
    cause: BaseException | None = error
    while cause is not None:
        if known := _refused_setting(cause) or _refused_file(cause):
            return known
        cause = cause.__cause__  # not its context: a mistake made while a file was missing is a mistake
    return None


def _refused_file(error: BaseException) -> LesionError | None:
    if not isinstance(error, OSError):
        return None
    what = error.strerror or str(error) or type(error).__name__
    place = f"'{error.filename}'" if error.filename else "A file or the output"
    return LesionError(
        f"{place} cannot be read or written: {what}. Name another place, or make room or rights there, and try again.",
        code="file_refused",
    )


def _refused_setting(error: BaseException) -> LesionError | None:
    # here, since servers import this module without Hydra
    from hydra.errors import HydraException, InstantiationException
    from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue, OmegaConfBaseException

    text = str(error)
    if isinstance(error, MissingMandatoryValue):
        key = error.full_key or text.rpartition(": ")[2]
        return ConfigError(
            f"{key} is not given: add {key}=… to the command. The file in configs that has it explains it."
        )
    if isinstance(error, InterpolationResolutionError):
        missing = text.partition("\n")[0].rpartition("interpolation: ")[2].strip('"')
        return ConfigError(f"A setting has no value: {missing}. The file in configs that asks for it explains it.")
    if isinstance(error, InstantiationException):
        if isinstance(error.__cause__, OSError | OmegaConfBaseException):
            return None  # it says more itself
        place = re.search(r"full_key: (\S+)", text)
        said = " ".join(str(error.__cause__ or text).partition("full_key:")[0].split())[:400].rstrip(".")
        return ConfigError(
            f"{place[1] if place else 'A setting'} cannot be used: {said}. The file in configs that has it says more; "
            "LESION_TRACEBACK=1 shows where this comes from."
        )
    if isinstance(error, HydraException | OmegaConfBaseException):
        said = " ".join(text.partition("Config search path")[0].split()).rstrip(".")
        return ConfigError(f"The settings cannot be used: {said}.")
    return None


def quoted(value: str) -> str:
    """Quote a setting's value for Hydra's command line, such as a path, whatever it is made of."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
