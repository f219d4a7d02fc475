"""What checks of settings and data have in common."""

from collections.abc import Iterable

from lesion.core.errors import ConfigError

MAX_SEED = 2**32 - 1  # NumPy's and Lightning's limit


def some(names: Iterable[object], limit: int = 5) -> str:
    """Return names for a sentence: at most ``limit`` of them, and how many more there are."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def check_seed(setting: str, seed: object) -> None:
    """Refuse what is no seed.

    Raises:
        ConfigError: It is not a whole number from 0 to ``MAX_SEED``.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"{setting}={seed} must be a whole number from 0 to {MAX_SEED}.")
