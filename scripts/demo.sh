#!/usr/bin/env bash
# Show all of Lesion on a machine that has only Python: install, generate phantoms, train, evaluate, report, serve.
# Then send one image, check the answer and the page, and run the loop once: upload, retrain, let the gate decide, swap.
#   bash scripts/demo.sh           leaves the API, its retraining worker and the web page running, and prints the addresses
#   bash scripts/demo.sh --check   stops everything at the end
# PORT and PAGE_PORT are the ports of the API and the page (8000 and 8501).
set -euo pipefail
check=false
case "${1:-}" in
"") ;;
--check) check=true ;;
*)
    echo "usage: bash scripts/demo.sh [--check]" >&2
    exit 2
    ;;
esac
port=${PORT:-8000} page_port=${PAGE_PORT:-8501}
# The demo must not mistake an older server or page for its own.
for used in "$port" "$page_port"; do
    if ! $check && (: <"/dev/tcp/127.0.0.1/$used") 2>/dev/null; then
        echo "Something listens on port $used already. Stop it, or choose others: PORT=8010 PAGE_PORT=8511 bash $0" >&2
        exit 1
    fi
done
source "$(dirname "${BASH_SOURCE[0]}")/lib/setup.sh"
started=$SECONDS

run=outputs/demo/$(date +%Y-%m-%d_%H-%M-%S)
python scripts/train.py experiment=phantom_mri "hydra.run.dir=$run"
python -c 'import json, sys
accuracy = json.load(open(sys.argv[1]))["metrics"]["test/acc"]
print(f"test/acc = {accuracy:.4f}, at least 0.90" if accuracy >= 0.9 else sys.exit(f"test/acc = {accuracy:.4f}, BELOW 0.90"))
' "$run/metrics.json"

free_port() { python -c 'from serve.deploy.ports import free_port; print(free_port())'; }
if $check; then port=$(free_port) page_port=$(free_port); fi
# Each runs in its own session, so that it can outlive this script, or end completely with its process group.
# A generation of the gate set is small here, and a large share of the uploads is held out for it, as the demo has few of
# them: on real data keep the defaults.
setsid python scripts/serve.py "bundle=$run/bundle" "port=$port" storage=local "storage_root=$run/loop" intake.holdout=0.4 \
    'worker_settings=["gate.renew_images=40"]' >"$run/server.log" 2>&1 &
server=$!
setsid python scripts/ui.py --api "http://127.0.0.1:$port" --port "$page_port" >"$run/page.log" 2>&1 &
page=$!
alive() { kill -0 -- "-$server" 2>/dev/null || kill -0 -- "-$page" 2>/dev/null; }
stop() {
    kill -TERM -- "-$page" "-$server" 2>/dev/null || true
    wait "$page" "$server" 2>/dev/null || true
}
trap stop EXIT

image=$(find data/phantom_mri -name '*.png' | sort | sed -n 1p) # not head, which ends before sort has written everything
python scripts/dev/request.py "http://127.0.0.1:$port" "$image" --wait 120 || { tail -n 20 "$run/server.log" >&2; exit 1; }
python scripts/dev/check_page.py "http://127.0.0.1:$page_port" --wait 60 --process "$page" || { tail -n 20 "$run/page.log" >&2; exit 1; }
echo "Trained, evaluated and served in $((SECONDS - started)) s after the install. Report: $run/report.html"

run_loop() {
    local began=$SECONDS
    python scripts/dev/demo_loop.py "http://127.0.0.1:$port" data/phantom_low_field || { tail -n 40 "$run/server.log" >&2; exit 1; }
    echo "Ran the loop once in $((SECONDS - began)) s."
}

if $check; then
    run_loop
    stop
    trap - EXIT
    for _ in $(seq 50); do alive || break; sleep 0.2; done
    if alive; then
        echo "Processes of the server or of the page are still running after SIGTERM." >&2
        exit 1
    fi
    echo "Everything is stopped."
else
    trap - EXIT
    echo "The web page is at http://127.0.0.1:$page_port, the API at http://127.0.0.1:$port (try /info)."
    echo "Stop both with: kill -- -$page -$server"
    echo "The loop now runs once, which fills every screen of the page (Ctrl-C stops only this):"
    run_loop
fi
