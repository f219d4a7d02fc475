"""Show the web page of a running server: python scripts/ui.py --api http://127.0.0.1:8000."""

from lesion.cli.main import run_script

if __name__ == "__main__":
    run_script()
