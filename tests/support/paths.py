"""Where the repository and its commands are."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "scripts"
CONFIGS = REPOSITORY / "configs"
