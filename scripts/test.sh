#!/usr/bin/env bash
# Installs everything and runs every check: lint, types, tests. Further arguments go to pytest: bash scripts/test.sh -k bundle
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/setup.sh"
source scripts/lib/debian.sh
if [ -z "${LESION_SHARED:-}" ]; then echo "LESION_SHARED is not set: the tests on real data will be skipped, each named below."; fi
ruff check .
ruff format --check .
mypy
exec python -m pytest "$@"
