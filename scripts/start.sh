#!/usr/bin/env bash
# Start Lesion on this machine: API replicas behind nginx, the retraining worker and the web page.
#   bash scripts/start.sh [--containers|--processes] [N]    N replicas of the API; by default 2, or the last number of
#                                                           containers
# Uses containers if a Docker engine answers (serve/deploy/compose.yaml, with PostgreSQL, a store and monitoring), otherwise
# plain processes (SQLite and a folder; needs nginx). An option forces one of them. scripts/scale.sh N changes the number
# of replicas, scripts/stop.sh ends everything; both keep the stored data.
# PORT and PAGE_PORT are the ports of nginx and the page when they are processes (8080 and 8501).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/deploying.sh"
how='' count=''
for argument in "$@"; do
    case "$argument" in
    --containers | --processes) how=${argument#--} ;;
    *[!0-9]* | '') usage "start.sh [--containers|--processes] [N]" ;;
    *) count=$argument ;;
    esac
done
if [ -z "$how" ]; then how=$(choose); fi

if [ "$how" = containers ]; then
    make_secrets
    if [ -n "$count" ] || ! grep -q '^LESION_API_REPLICAS=' "$secrets"; then remember_replicas "${count:-2}"; fi
    echo "Starting Lesion in containers, the API with $(grep '^LESION_API_REPLICAS=' "$secrets") ..."
    exec "${compose[@]}" up -d --build --wait
fi
setup
exec python scripts/lib/replicas.py start "${count:-2}" --port "${PORT:-8080}" --page-port "${PAGE_PORT:-8501}"
