#!/usr/bin/env bash
# Starts Lesion on this machine: API replicas behind nginx, the retraining worker and the web page.
#   bash scripts/start.sh [--containers|--processes] [N]    N replicas of the API; left out, 2, or as many containers as last
# In containers where a Docker engine answers (serve/deploy/compose.yaml, with PostgreSQL, a store and monitoring), else
# as plain processes (SQLite and a folder; needs nginx). Either one can be asked for. scripts/scale.sh N changes the
# number of replicas, scripts/stop.sh ends everything; both keep what is stored.
# PORT and PAGE_PORT say where nginx and the page listen when they are processes (8080 and 8501).
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
