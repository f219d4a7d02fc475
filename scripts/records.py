"""Find, verify and reproduce what was answered: python scripts/records.py --help."""

from lesion.cli.main import run_script

if __name__ == "__main__":
    run_script()
