"""Errors of commands: one sentence on stderr and an exit status instead of a traceback."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lesion.core.errors import ConfigError, LesionError

USAGE = 2  # exit status after an error that the user can correct
STOPPED = 130  # exit status after Ctrl-C


@contextmanager
def cli_errors(checkpoint: Path | None = None) -> Iterator[None]:
    """Print an error that the user can correct as one sentence on stderr, and exit with status 2.

    These are a ``LesionError``, a setting that Hydra refuses, a database that does not answer or has no room, and a
    file or disk that cannot be read or written. Hydra wraps what a ``_target_`` raises, so the causes of an error are
    searched too. Any other error is a mistake in the program and keeps its traceback, and so do all errors with
    ``LESION_TRACEBACK=1``. Ctrl-C exits with status 130 and tells how to resume from ``checkpoint``, if that file has
    been written by then.
    """
    try:
        yield
    except BrokenPipeError:  # the reader of the output has ended; each command handles that itself
        raise
    except KeyboardInterrupt:
        resumable = checkpoint is not None and checkpoint.is_file()
        print(f"stopped; continue with resume={checkpoint}" if resumable else "stopped", file=sys.stderr)
        raise SystemExit(STOPPED) from None
    except Exception as error:
        user_error = _user_error(error)
        if user_error is None or os.environ.get("LESION_TRACEBACK") == "1":
            raise
        print(f"error ({user_error.code}): {user_error.message}", file=sys.stderr)
        raise SystemExit(USAGE) from None


def _user_error(error: Exception) -> LesionError | None:
    """Return the error for the user that an exception or one of its causes stands for; None for a program mistake."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, LesionError):
            return link
        link = link.__cause__ or link.__context__
    link = error
    while link is not None:
        if user_error := _hydra_error(link) or _file_error(link) or _database_error(link):
            return user_error
        link = link.__cause__  # not its context: a mistake in the handling of a missing file is a mistake
    return None


def _file_error(error: BaseException) -> LesionError | None:
    if not isinstance(error, OSError):
        return None
    reason = error.strerror or str(error) or type(error).__name__
    subject = f"'{error.filename}'" if error.filename else "A file or the output"
    return LesionError(
        f"{subject} cannot be read or written: {reason}. Name another path, free some space or change the "
        "permissions, and try again.",
        code="file_refused",
    )


def _database_error(error: BaseException) -> LesionError | None:
    exceptions = sys.modules.get("sqlalchemy.exc")  # a command without a database does not load it
    if exceptions is None or not isinstance(error, exceptions.OperationalError):
        return None
    return LesionError(
        f"The database cannot be used now: {str(error.__cause__).strip()}. Check that it runs, that its disk has room "
        "and that nothing else holds it, and try again.",
        code="database_unavailable",
    )


def _hydra_error(error: BaseException) -> LesionError | None:
    # imported here, since servers import this module without Hydra
    from hydra.errors import HydraException, InstantiationException
    from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue, OmegaConfBaseException

    text = str(error)
    if isinstance(error, MissingMandatoryValue):
        key = error.full_key or text.rpartition(": ")[2]
        return ConfigError(f"{key} is not given: add {key}=… to the command. The config file that has it explains it.")
    if isinstance(error, InterpolationResolutionError):
        missing = text.partition("\n")[0].rpartition("interpolation: ")[2].strip('"')
        return ConfigError(f"A setting has no value: {missing}. The config file that asks for it explains it.")
    if isinstance(error, InstantiationException):
        if isinstance(error.__cause__, OSError | OmegaConfBaseException):
            return None  # the cause is more specific
        key_match = re.search(r"full_key: (\S+)", text)
        reason = _one_line(str(error.__cause__ or text).partition("full_key:")[0])[:400].rstrip(".")
        return ConfigError(
            f"{key_match[1] if key_match else 'A setting'} cannot be used: {reason}. The config file that has it "
            "explains it; LESION_TRACEBACK=1 shows where the error comes from."
        )
    if isinstance(error, HydraException | OmegaConfBaseException):
        reason = _one_line(text.partition("Config search path")[0]).rstrip(".")
        return ConfigError(f"The settings cannot be used: {reason}.")
    return None


def _one_line(text: str) -> str:
    return " ".join(text.split())
