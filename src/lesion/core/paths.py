"""Which files and folders are never data, wherever data is looked for."""

from pathlib import PurePath

_ARCHIVER = "__MACOSX"  # macOS puts a shadow of each file into its ZIP archives, named as the file is


def is_hidden(path: PurePath) -> bool:
    """Tell whether a part of a path, relative to the folder that was named, begins with a dot or is an archiver's."""
    return any(part.startswith(".") or part == _ARCHIVER for part in path.parts)
