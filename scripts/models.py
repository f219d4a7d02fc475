"""Import, list, promote and roll back models: python scripts/models.py --help."""

from lesion.cli.main import run_script

if __name__ == "__main__":
    run_script()
