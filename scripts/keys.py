"""Make, list and revoke API keys: python scripts/keys.py --help."""

from lesion.cli.main import run_script

if __name__ == "__main__":
    run_script()
