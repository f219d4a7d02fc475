#!/usr/bin/env bash
# Compile requirements.lock from pyproject.toml: every extra, every platform, with hashes and without index addresses.
# Then compile, for each container image, the part that it installs: serve/deploy/requirements/*.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
compile=(.venv/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --quiet)
"${compile[@]}" pyproject.toml --all-extras --output-file requirements.lock "$@"

# Compile the list of one image. Arguments: its name, then the extras that it needs.
image() {
    local name=$1 extras=() extra
    shift
    for extra in "$@"; do extras+=(--extra "$extra"); done
    "${compile[@]}" pyproject.toml "${extras[@]}" --constraints requirements.lock --no-annotate \
        --output-file "serve/deploy/requirements/$name.txt"
}
image api serve cluster dicom traces
image api-gpu serve cluster dicom traces gpu
image worker train cluster dicom
image ui ui

# uv itself, which installs the rest, in the version that setup.sh names.
sed -n "s/.*'\(uv==[0-9.]*\)'.*/\1/p" scripts/lib/setup.sh | "${compile[@]}" - --no-annotate \
    --output-file serve/deploy/requirements/uv.txt

# The packages that build Lesion's wheel, and the wheels of packages that come as source.
printf 'hatchling\nsetuptools\n' | "${compile[@]}" - --constraints requirements.lock --no-annotate \
    --output-file serve/deploy/requirements/build.txt
