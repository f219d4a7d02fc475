"""Serve a bundle over HTTP: python scripts/serve.py bundle=outputs/bundle port=8000."""

from lesion.cli.main import run_script

if __name__ == "__main__":
    run_script()
