# Sourced by start.sh, scale.sh and stop.sh: goes to the repository's root, and says whether there is a Docker engine.
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
secrets=serve/deploy/.env
compose=(docker compose --env-file "$secrets" -f serve/deploy/compose.yaml)

usage() {
    echo "usage: bash scripts/$1" >&2
    exit 2
}

setup() { source scripts/lib/setup.sh; }

docker_answers() { command -v docker >/dev/null && docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; }

choose() {
    if docker_answers; then
        echo "A Docker engine answers: containers. (--processes does without.)" >&2
        echo containers
    else
        echo "No Docker engine with compose answers: plain processes on this machine." >&2
        echo processes
    fi
}

# What start.sh started: containers if there are any, else processes.
running() {
    if [ -f "$secrets" ] && docker_answers && [ -n "$("${compose[@]}" ps --quiet 2>/dev/null)" ]; then
        echo containers
    else
        echo processes
    fi
}

# What every later 'up' starts, an upgrade's as well.
remember_replicas() {
    (umask 077 && { grep -v '^LESION_API_REPLICAS=' "$secrets" || true; } >"$secrets.new")
    echo "LESION_API_REPLICAS=$1" >>"$secrets.new"
    mv "$secrets.new" "$secrets"
}

random_hex() { od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }

# What .env.example leaves empty is made once, by chance, for this machine alone: nothing has a default password.
make_secrets() {
    local name value
    if [ -f "$secrets" ]; then return; fi
    (
        umask 077
        while IFS== read -r name value; do
            case "$name" in
            *_KEY) value="lesion_$(random_hex 8)_$(random_hex 32)" ;;
            *) value=$(random_hex 24) ;;
            esac
            echo "$name=$value"
        done < <(grep -E '^[A-Z_]+=$' "$secrets.example") >"$secrets.new"
        mv "$secrets.new" "$secrets"
    )
    echo "Made passwords and keys: $secrets. LESION_ADMIN_KEY in it is the key to sign in with."
}
