"""Run retrainings: python scripts/worker.py."""

from lesion.cli.main import run_script

if __name__ == "__main__":
    run_script()
