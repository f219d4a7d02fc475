"""Back up, verify and restore the database and the store: python scripts/backup.py --help."""

from lesion.cli.main import run_script

if __name__ == "__main__":
    run_script()
