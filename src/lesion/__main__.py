"""``python -m lesion`` is the command ``lesion``."""

import sys

from lesion.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
