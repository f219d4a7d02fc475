#!/usr/bin/env bash
# End what scripts/start.sh started, containers and processes. The stored data stays.
#   bash scripts/stop.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/deploying.sh"
if [ $# -gt 0 ]; then usage "stop.sh"; fi
if [ "$(running)" = containers ]; then
    echo "Stopping the containers ..."
    "${compose[@]}" down
fi
if [ -f outputs/replicas/replicas.json ]; then
    setup
    exec python scripts/lib/replicas.py stop
fi
