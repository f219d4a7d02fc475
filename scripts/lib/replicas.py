"""API replicas behind nginx on this machine, without containers.

python scripts/lib/replicas.py start 4        # with a retraining worker and the page, state in outputs/replicas
python scripts/lib/replicas.py scale 2
python scripts/lib/replicas.py restart        # one after another; no request is lost
python scripts/lib/replicas.py status         # exit status 1 when something died; scale starts it again
python scripts/lib/replicas.py stop
"""

import argparse
import sys
from pathlib import Path

from lesion.cli.models import print_rows
from lesion.core.cli_errors import cli_errors
from serve.deploy.plan import Plan
from serve.deploy.replicas import Replicas

STATE = Path(__file__).resolve().parents[2] / "outputs" / "replicas"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--state", type=Path, default=STATE, help="the folder for process ids, logs and nginx's files")
    verbs = made.add_subparsers(dest="verb", required=True)
    start = verbs.add_parser("start", help="start replicas, nginx, the worker and the page")
    start.add_argument("count", type=int, nargs="?", default=2, help="of replicas")
    start.add_argument("--port", type=int, default=8080, help="where nginx listens")
    start.add_argument("--host", default="127.0.0.1", help="0.0.0.0 to answer other machines; needs API keys")
    start.add_argument("--tls-port", type=int, help="HTTPS too, with the files in serve/deploy/nginx/tls")
    start.add_argument("--page-port", type=int, default=8501, help="where the page listens behind nginx")
    start.add_argument("--no-page", action="store_true")
    start.add_argument("--no-worker", action="store_true", help="no worker for retrainings")
    start.add_argument("--workers", type=int, default=1, help="inference workers of each replica")
    start.add_argument("--bundle", type=Path, help="the first model; the newest below outputs/ when left out")
    start.add_argument("--storage", choices=("local", "cluster", "none"), default="local")
    start.add_argument("--storage-root", type=Path, help="the storage's folder on this machine")
    start.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of configs/serve.yaml")
    start.add_argument("--set-worker", action="append", default=[], metavar="KEY=VALUE", help="of configs/worker.yaml")
    verbs.add_parser("scale", help="change the number of replicas; starts again what died").add_argument(
        "count", type=int
    )
    for name, words in (
        ("restart", "put a new replica in the place of each"),
        ("stop", "end everything"),
        ("status", "what runs"),
    ):
        verbs.add_parser(name, help=words)
    return made


def plan_of(options: argparse.Namespace) -> Plan:
    return Plan(
        port=options.port,
        host=options.host,
        tls_port=options.tls_port,
        bundle=str(options.bundle.resolve()) if options.bundle else None,
        storage=options.storage,
        storage_root=str(options.storage_root.resolve()) if options.storage_root else None,
        workers=options.workers,
        worker=not options.no_worker,
        page_port=None if options.no_page else options.page_port,
        settings=tuple(options.set),
        worker_settings=tuple(options.set_worker),
    )


def main() -> int:
    options = parser().parse_args()
    with cli_errors():
        replicas = Replicas(options.state)
        if options.verb == "start":
            replicas.start(options.count, plan_of(options))
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
