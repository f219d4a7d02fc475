"""What every command does alike: errors for people, and finding bundles."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lesion.errors import ConfigError, LesionError

USAGE = 2  # the exit status of a command that was used wrongly


@contextmanager
def errors_for_people() -> Iterator[None]:
    """Turn a ``LesionError`` into one sentence on stderr and exit status 2; ``LESION_TRACEBACK=1`` keeps the traceback.

    Hydra wraps what a ``_target_`` raises, so causes are looked at too.
    """
    try:
        yield
    except Exception as error:
        known = _cause(error)
        if known is None or os.environ.get("LESION_TRACEBACK") == "1":
            raise
        print(f"error ({known.code}): {known.message}", file=sys.stderr)
        raise SystemExit(USAGE) from None


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


def _cause(error: BaseException | None) -> LesionError | None:
    from omegaconf.errors import InterpolationResolutionError  # here, since servers import this module without Hydra

    while error is not None:
        if isinstance(error, InterpolationResolutionError):
            missing = str(error).partition("\n")[0].rpartition("interpolation: ")[2].strip('"')
            return ConfigError(f"A setting has no value: {missing}. The file in configs that asks for it explains it.")
        if isinstance(error, LesionError):
            return error
        error = error.__cause__ or error.__context__
    return None
