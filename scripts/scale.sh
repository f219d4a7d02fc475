#!/usr/bin/env bash
# Change the number of API replicas that scripts/start.sh started; no request is lost. Replicas that died start again.
#   bash scripts/scale.sh N
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/deploying.sh"
case "${1:-}" in *[!0-9]* | '') usage "scale.sh N" ;; esac
if [ "$(running)" = containers ]; then
    if [ "$1" = 0 ]; then usage "scale.sh N (scripts/stop.sh ends everything)"; fi
    echo "Scaling the containers to $1 API replicas ..."
    count=$("${compose[@]}" ps --quiet api | wc -l)
    # One at a time: nginx learns of a container before it listens, and gives up a request after three refusals.
    while [ "$count" != "$1" ]; do
        count=$((count < $1 ? count + 1 : count - 1))
        "${compose[@]}" up -d --wait --no-recreate --scale "api=$count"
    done
    remember_replicas "$1"
    exit
fi
setup
exec python scripts/lib/replicas.py scale "$1"
