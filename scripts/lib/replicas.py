"""API replicas behind nginx on this machine, without containers.

python scripts/lib/replicas.py start 4        # with a retraining worker and the page, state in outputs/replicas
python scripts/lib/replicas.py scale 2
python scripts/lib/replicas.py restart        # one after another; no request is lost
python scripts/lib/replicas.py status         # exit status 1 when a process died; scale starts it again
python scripts/lib/replicas.py stop
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from lesion.cli.text_table import print_rows
from lesion.core.cli_errors import cli_errors
from serve.deploy.processes import Plan
from serve.deploy.replicas import REPOSITORY, Replicas

STATE = REPOSITORY / "outputs" / "replicas"


def parse() -> argparse.Namespace:
    """Read the command line; the options of ``start`` are stored under the names of ``Plan``'s fields."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=STATE, help="the folder for process ids, logs and nginx's files")
    verbs = parser.add_subparsers(dest="verb", required=True)
    start = verbs.add_parser("start", help="start replicas, nginx, the worker and the page")
    start.add_argument("count", type=int, nargs="?", default=2, help="number of replicas")
    start.add_argument("--port", type=int, default=8080, help="port of nginx")
    start.add_argument("--host", default="127.0.0.1", help="0.0.0.0 to answer other machines; needs API keys")
    start.add_argument("--tls-port", type=int, help="port for HTTPS, with the files in serve/deploy/nginx/tls")
    start.add_argument("--page-port", type=int, default=8501, help="port of the page behind nginx")
    start.add_argument("--no-page", dest="page_port", action="store_const", const=None, help="no web page")
    start.add_argument("--no-worker", dest="worker", action="store_false", help="no retraining worker")
    start.add_argument("--workers", type=int, default=1, help="inference workers of each replica")
    start.add_argument("--bundle", type=absolute, help="the first model; by default the newest in outputs/")
    start.add_argument("--storage", choices=("local", "cluster", "none"), default="local")
    start.add_argument("--storage-root", type=absolute, help="the storage's folder on this machine")
    setting: dict[str, Any] = {"action": "append", "default": [], "metavar": "KEY=VALUE"}
    start.add_argument("--set", dest="settings", help="a setting of configs/serve.yaml", **setting)
    start.add_argument("--set-worker", dest="worker_settings", help="a setting of configs/worker.yaml", **setting)
    scale = verbs.add_parser("scale", help="change the number of replicas; start again what died")
    scale.add_argument("count", type=int)
    verbs.add_parser("restart", help="replace each replica by a new one")
    verbs.add_parser("stop", help="end everything")
    verbs.add_parser("status", help="show what runs")
    return parser.parse_args()


def absolute(path: str) -> str:
    return str(Path(path).resolve())


def main() -> int:
    options = parse()
    with cli_errors():
        replicas = Replicas(options.state)
        if options.verb == "start":
            plan = {field.name: getattr(options, field.name) for field in fields(Plan) if field.name in options}
            replicas.start(options.count, Plan(**plan))
        elif options.verb == "scale":
            replicas.scale(options.count)
        elif options.verb != "status":
            getattr(replicas, options.verb)()
        rows = replicas.status()
        if options.verb == "stop" or not rows:
            print("Nothing runs.")
            return 0
        print_rows(rows)
        page = f", the web page at {replicas.plan.address}/ui/" if replicas.plan.page_port else ""
        print(f"The API is at {replicas.plan.address}{page}. Logs: {replicas.state}")
        return 0 if all(row["alive"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
