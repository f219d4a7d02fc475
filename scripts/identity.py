"""Take what identifies a person from stored images: python scripts/identity.py --help."""

from lesion.cli.main import run_script

if __name__ == "__main__":
    run_script()
