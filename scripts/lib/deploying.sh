# Sourced by start.sh, scale.sh and stop.sh: changes to the repository's root, and chooses containers or processes.
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
        echo "A Docker engine answers: starting containers. (--processes starts plain processes.)" >&2
        echo containers
    else
        echo "No Docker engine with compose answers: starting plain processes on this machine." >&2
        echo processes
    fi
}

# Print what start.sh started: containers if there are any, otherwise processes.
running() {
    if [ -f "$secrets" ] && docker_answers && [ -n "$("${compose[@]}" ps --quiet 2>/dev/null)" ]; then
        echo containers
    else
        echo processes
    fi
}

# Store the number of replicas for every later 'up', also that of an upgrade.
remember_replicas() {
    (umask 077 && { grep -v '^LESION_API_REPLICAS=' "$secrets" || true; } >"$secrets.new")
    echo "LESION_API_REPLICAS=$1" >>"$secrets.new"
    mv "$secrets.new" "$secrets"
}

# The names of the values that .env.example leaves empty and the file with the secrets does not have.
missing_secrets() {
    local name
    grep -oE '^[A-Z_]+=$' "$secrets.example" | tr -d = | while read -r name; do
        grep -qs "^$name=" "$secrets" || echo "$name"
    done
}

random_hex() { od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }

# Generate at random, once, the values that .env.example leaves empty: nothing has a default password. A file of an earlier
# version gets those that it lacks.
make_secrets() {
    local name value
    if [ -f "$secrets" ] && [ -z "$(missing_secrets)" ]; then return; fi
    (
        umask 077
        if [ -f "$secrets" ]; then cat "$secrets"; fi >"$secrets.new"
        missing_secrets | while read -r name; do
            case "$name" in
            LESION_IDENTITY_KEY) value=$(random_hex 32) ;;
            *_KEY) value="lesion_$(random_hex 8)_$(random_hex 32)" ;;
            *) value=$(random_hex 24) ;;
            esac
            echo "$name=$value"
        done >>"$secrets.new"
        mv "$secrets.new" "$secrets"
    )
    echo "Generated passwords and keys: $secrets. Sign in with its LESION_ADMIN_KEY."
}
