"""Ask a running server for a retraining: python scripts/retrain.py http://127.0.0.1:8000."""

from lesion.cli.main import run_script

if __name__ == "__main__":
    run_script()
