"""Make, list and revoke API keys: python scripts/keys.py --help."""

import sys

from lesion.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["keys", *sys.argv[1:]]))
