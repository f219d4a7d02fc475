"""Checks that several settings share."""

from lesion.core.errors import ConfigError

MAX_SEED = 2**32 - 1  # the limit of NumPy and Lightning


def check_seed(setting: str, seed: object) -> None:
    """Raise a ConfigError unless a seed is a whole number from 0 to ``MAX_SEED``."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"{setting}={seed} must be a whole number from 0 to {MAX_SEED}.")
