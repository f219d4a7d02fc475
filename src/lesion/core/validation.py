"""Checks that several settings share."""

from collections.abc import Mapping, Sequence

from lesion.core.errors import ConfigError

MAX_SEED = 2**32 - 1  # the limit of NumPy and Lightning
MAX_CLASS_NAME = 80  # characters


def check_seed(setting: str, seed: object) -> None:
    """Raise a ConfigError unless a seed is a whole number from 0 to ``MAX_SEED``."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"{setting}={seed} must be a whole number from 0 to {MAX_SEED}.")


def complete_class_names(setting: str, names: Mapping[str, str], classes: Sequence[str]) -> dict[str, str]:
    """Return the name by which each class is shown: its own where ``names`` has no other.

    A name that belongs to no class, is no line of 1 to 80 characters, or is shown for two classes is a ConfigError.
    """
    for label, name in names.items():
        if label not in classes:
            raise ConfigError(f"{setting} names {label!r}, which is not a class. The classes are {', '.join(classes)}.")
        if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name.strip()) <= MAX_CLASS_NAME:
            raise ConfigError(f"{setting}.{label} must be a line of 1 to {MAX_CLASS_NAME} characters, not {name!r}.")
    complete = {label: names.get(label, label).strip() for label in classes}
    if len(set(complete.values())) < len(complete):
        raise ConfigError(f"{setting} shows two classes by the same name: {', '.join(complete.values())}.")
    return complete
