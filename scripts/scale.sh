#!/usr/bin/env bash
# Changes the number of API replicas that scripts/start.sh started; no request is lost. What died is started again.
#   bash scripts/scale.sh N
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/deploying.sh"
case "${1:-}" in *[!0-9]* | '') usage "scale.sh N" ;; esac
if [ "$(running)" = containers ]; then
    echo "Scaling the containers to $1 API replicas ..."
    exec "${compose[@]}" up -d --wait --no-recreate --scale "api=$1"
fi
setup
exec python scripts/replicas.py scale "$1"
