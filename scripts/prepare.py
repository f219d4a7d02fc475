"""Make a storage ready for servers and workers: python scripts/prepare.py."""

from lesion.cli.main import run_script

if __name__ == "__main__":
    run_script()
