"""Train, evaluate, explain and bundle a classifier: python scripts/train.py experiment=phantom_mri."""

from lesion.cli.main import run_script

if __name__ == "__main__":
    run_script()
