"""Download a reference dataset: python scripts/download.py brain_tumor_mri --to data/brain_tumor_mri."""

from lesion.cli.main import run_script

if __name__ == "__main__":
    run_script()
