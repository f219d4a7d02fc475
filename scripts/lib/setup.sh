# Sourced by demo.sh and test.sh: changes to the repository's root and creates .venv from requirements.lock, once per lock.
# It installs only what the lock names with its hash, except uv, which installs the rest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

find_python() {
    local name
    for name in "${PYTHON:-}" python3.12 python3.11 python3.13 python3; do
        if [ -n "$name" ] && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "Lesion needs Python 3.11 or newer. Install it, or name it: PYTHON=/path/to/python bash $0" >&2
    exit 1
}

install() {
    local python stamp=.venv/.lesion-lock wanted
    wanted=$(cat requirements.lock pyproject.toml scripts/lib/setup.sh | sha256sum | cut -d' ' -f1)
    if [ "$(cat $stamp 2>/dev/null)" = "$wanted" ]; then return; fi
    python=$(find_python)
    echo "Installing into .venv (about 6 GB, most of it torch) ..."
    if [ ! -x .venv/bin/python ]; then "$python" -m venv .venv; fi
    .venv/bin/python -m pip install --quiet --disable-pip-version-check 'uv==0.13.9'
    export VIRTUAL_ENV=$PWD/.venv
    # Compile the modules once: otherwise every process that may not write would compile torch's 5,000 modules again.
    env -u PYTHONDONTWRITEBYTECODE .venv/bin/uv pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
    .venv/bin/uv pip uninstall --quiet openvino-telemetry # left from an earlier lock: see pyproject.toml
    .venv/bin/uv pip install --quiet --no-deps --no-build-isolation --editable .
    echo "$wanted" >$stamp
}

install_started=$SECONDS
install
echo "Installed in $((SECONDS - install_started)) s: Python $(.venv/bin/python -c 'import platform; print(platform.python_version())'), $(nproc) cores."
export PATH=$PWD/.venv/bin:$PATH
export HYDRA_FULL_ERROR=${HYDRA_FULL_ERROR:-0}
