#!/usr/bin/env bash
# Starts Lesion on this machine: API replicas behind nginx, the retraining worker and the web page.
#   bash scripts/start.sh [--containers|--processes] [N]    N replicas of the API, 2 when left out
# In containers where a Docker engine answers (serve/deploy/compose.yaml, with PostgreSQL, a store and monitoring), else
# as plain processes (SQLite and a folder; needs nginx). Either one can be asked for. scripts/scale.sh N changes the
# number of replicas, scripts/stop.sh ends everything; both keep what is stored.
# PORT and PAGE_PORT say where nginx and the page listen when they are processes (8080 and 8501).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/deploying.sh"
how='' count=2
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
    echo "Starting $count API replicas and what belongs to them in containers ..."
    exec "${compose[@]}" up -d --build --wait --scale "api=$count"
fi
setup
exec python scripts/replicas.py start "$count" --port "${PORT:-8080}" --page-port "${PAGE_PORT:-8501}"
