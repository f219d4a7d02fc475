#!/usr/bin/env bash
# Installs everything and runs every check: lint, types, tests. Further arguments go to pytest: bash scripts/test.sh -k bundle
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
if [ -z "${LESION_SHARED:-}" ]; then echo "LESION_SHARED is not set: the tests on real data will be skipped, each named below."; fi
# Playwright steers Debian's Chromium; its own cannot be had everywhere, and a test never fetches one.
find_chromium() { [ -n "${LESION_CHROMIUM:-}" ] || command -v chromium chromium-browser google-chrome >/dev/null; }
if ! find_chromium && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing Debian's chromium for the tests of the web page ..."
    (apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium) >/dev/null 2>&1 || true
fi
if ! find_chromium; then echo "There is no Chromium (apt-get install chromium): the tests in a browser will be skipped."; fi
ruff check .
ruff format --check .
mypy
exec python -m pytest "$@"
