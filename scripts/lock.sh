#!/usr/bin/env bash
# Compile requirements.lock from pyproject.toml: every extra, every platform, with hashes and without index addresses.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec .venv/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
    --no-header --output-file requirements.lock "$@"
