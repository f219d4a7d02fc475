#!/usr/bin/env bash
# Installs everything and runs every check: lint, types, tests.
#   bash scripts/test.sh            everything that runs on each change
#   bash scripts/test.sh --fast     only tests without servers, trainings and browsers; no lint, no types
#   bash scripts/test.sh --long     also the tests that are marked long
#   bash scripts/test.sh ARGUMENTS  only what pytest selects: bash scripts/test.sh tests/model -k bundle
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/setup.sh"
# Threads that spin while they wait take the cores from the processes next to them.
export OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0
unset PYTHONDONTWRITEBYTECODE # the tests start hundreds of processes, which need not compile the same modules
# Nor do the threads of one matrix product wait for each other where the cores are shared.
side_by_side=(env OPENBLAS_NUM_THREADS=1 python -m pytest)
by_file=(--dist loadfile --no-loadscope-reorder)
case "${1:-}" in
--fast) exec "${side_by_side[@]}" -n "$(nproc)" "${by_file[@]}" -m "not slow and not real and not browser and not long" "${@:2}" ;;
--long) kind="(long or not long)" arguments=("${@:2}") ;;
*) kind="not long" arguments=("$@") ;;
esac
source scripts/lib/debian.sh
if [ -z "${LESION_SHARED:-}" ]; then echo "LESION_SHARED is not set: the tests on real data will be skipped, each named below."; fi
ruff check .
ruff format --check .
mypy
if [ ${#arguments[@]} -gt 0 ]; then exec python -m pytest -m "$kind" "${arguments[@]}"; fi
status=0
# One process more than cores: these tests often wait for servers and trainings.
"${side_by_side[@]}" -n "$(($(nproc) + 1))" "${by_file[@]}" -m "$kind and not alone" || status=$?
mapfile -t alone < <(grep -lr 'pytest\.mark\.alone' tests --include='test_*.py')
python -m pytest -m "$kind and alone" "${alone[@]}" || status=$?
exit "$status"
