"""Check the layout of the code and the wording of its prose: python scripts/dev/check_layout.py

Three rules: no folder of code holds more than 14 modules; a file name stands only once, unless its files are about one
subject; and phrases that readers stumble over stay rare. The exit status is 1 when a rule is broken.
"""

import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

CODE = ("src", "serve", "scripts", "tests")
MAX_MODULES = 14
PROSE = ("src", "serve", "scripts", "docs", "README.md")
PROSE_SUFFIXES = (".py", ".sh", ".md", ".j2")
MAX_PHRASES = 14
PHRASES = re.compile(
    r"\b[Ii]s\s+none\b|(?<!there )(?<!There )\b[Ii]s\s+no\s+\w+\s+that\b|\b[Gg]o(?:es)?\s+on\b|\b[Aa]new\b"
    r"|\b[Ss]ays?\s+(?:how|what|whether)\b|\b[Ff]or\s+people\b"
)
# Modules whose name stands more than once, by the subject that they share.
SUBJECTS = {
    "a command and its script": (
        "backup",
        "download",
        "identity",
        "prepare",
        "records",
        "serve",
        "train",
        "ui",
        "worker",
    ),
    "a command, its script, its route or its screen": ("keys", "models", "predict", "retrain"),
    "a subject and its benchmark": ("duplicates", "foreign_images", "gate", "page", "replicas"),
    "a subject and its screen or route": ("api_keys", "deployments", "images", "uploads"),
}
SHARED_NAMES = [f"{name}.py" for names in SUBJECTS.values() for name in names]


def tracked_files(root: Path) -> list[PurePosixPath]:
    """Return the files that git tracks or would track, relative to the repository's root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    return [PurePosixPath(name) for name in names if (root / name).is_file()]


def crowded_folders(files: Iterable[PurePosixPath]) -> list[str]:
    """Return a sentence for each folder of code with more than ``MAX_MODULES`` modules."""
    modules = [file for file in files if file.suffix == ".py" and file.name != "__init__.py"]
    counts = Counter(module.parent for module in modules if module.parts[0] in CODE)
    return [
        f"{folder} holds {count} modules; {MAX_MODULES} are allowed: split it by subject."
        for folder, count in sorted(counts.items())
        if count > MAX_MODULES
    ]


def repeated_names(files: Iterable[PurePosixPath]) -> list[str]:
    """Return a sentence for each file name outside the tests that stands twice without a subject in common."""
    places = defaultdict[str, list[PurePosixPath]](list)
    for file in files:
        if file.parts[0] in ("src", "serve", "scripts") and file.suffix == ".py" and not file.stem.startswith("__"):
            places[file.name].append(file)
    return [
        f"{name} stands more than once: {', '.join(map(str, paths))}. Name what each is about."
        for name, paths in sorted(places.items())
        if len(paths) > 1 and name not in SHARED_NAMES
    ]


def unused_exceptions(files: Iterable[PurePosixPath]) -> list[str]:
    """Return a sentence for each name in ``SHARED_NAMES`` that stands once or not at all."""
    count = Counter(file.name for file in files if file.parts[0] in ("src", "serve", "scripts"))
    return [f"{name} needs no exception: it stands {count[name]} times." for name in SHARED_NAMES if count[name] < 2]


def hard_phrases(root: Path, files: Iterable[PurePosixPath]) -> list[str]:
    """Return file, line and text of each phrase in ``PHRASES``, in code and documentation but not in this script."""
    places = []
    for file in files:
        named = str(file) in PROSE or file.parts[0] in PROSE
        if not named or file.suffix not in PROSE_SUFFIXES or file.name == Path(__file__).name:
            continue
        text = (root / file).read_text("utf-8")
        for match in PHRASES.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            places.append(f"{file}:{line}: {' '.join(match[0].split())}")
    return places


def main() -> int:
    root = Path(__file__).parents[2]
    files = tracked_files(root)
    phrases = hard_phrases(root, files)
    faults = crowded_folders(files) + repeated_names(files) + unused_exceptions(files)
    if len(phrases) > MAX_PHRASES:
        faults += [*phrases, f"{len(phrases)} hard phrases; {MAX_PHRASES} are allowed."]
    print("\n".join(faults) or f"The layout is as it should be; {len(phrases)} hard phrases.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
