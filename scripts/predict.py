"""Predict image files with a bundle: python scripts/predict.py scan.png more/ --bundle outputs/bundle."""

from lesion.cli.main import run_script

if __name__ == "__main__":
    run_script()
