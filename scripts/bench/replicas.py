"""Measure 1, 2, 4 and 8 API replicas behind a real nginx, as a load test of the same kind was published elsewhere.

python scripts/bench/replicas.py                       # 100 users, 10 more per second, 1 minute for each row
python scripts/bench/replicas.py --replicas 1 2 --run-time 10 --images mixed

Everything runs on this machine, the simulated users too; a column shows the share of the cores that they used.
Writes table.csv, report.html and plot.png. With --require it exits with 1 unless every row has 100 % success and more
than 97.5 requests/s, which the published table reports for 8 replicas (on other, unnamed hardware).
"""

import argparse
import base64
import html
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from lesion.core.cli_errors import cli_errors
from lesion.core.cpu import available_cores
from lesion.core.paths import latest_bundle
from scripts.bench.common import REPOSITORY, bench_parser, machine, timed
from serve.deploy.ports import free_port
from serve.deploy.processes import Plan, ProcessRecord
from serve.deploy.replicas import Replicas

LOCUSTFILE = REPOSITORY / "serve" / "load" / "locustfile.py"
PUBLISHED_RPS = 97.5
WARM_UP_S = 2
COLUMNS = {
    "replicas": "Replicas",
    "requests": "Requests",
    "average_ms": "Average (ms)",
    "maximum_ms": "Maximum (ms)",
    "p50_ms": "p50 (ms)",
    "p95_ms": "p95 (ms)",
    "p99_ms": "p99 (ms)",
    "requests_per_s": "Requests/s",
    "success_percent": "Success (%)",
    "api_cpu_ms": "CPU of the API per request (ms)",
    "nginx_cpu_ms": "CPU of nginx per request (ms)",
    "users_cpu_percent": "The users' share of the cores (%)",
}


def main() -> None:
    parser = bench_parser(__doc__, require=f"exit with 1 below 100 % success or {PUBLISHED_RPS} requests/s")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--spawn-rate", type=float, default=10)
    parser.add_argument("--run-time", type=int, default=60, help="seconds")
    parser.add_argument("--images", help="as LESION_LOAD_IMAGES: a folder or 'mixed'; by default scans of 512 pixels")
    parser.add_argument("--bundle", type=Path, help="by default the newest in outputs/")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "outputs" / "bench_replicas")
    options = parser.parse_args()
    with cli_errors():
        bundle = (options.bundle or latest_bundle(REPOSITORY / "outputs")).resolve()
        options.out.mkdir(parents=True, exist_ok=True)
        facts = (
            f"{options.users} users, {options.spawn_rate:g} more per second, {options.run_time} s, images: "
            f"{options.images or 'scans, JPEG, 512 pixels'}; {machine()} before the start; one inference worker per "
            f"replica; bundle {bundle.parent.name}"
        )
        print(facts, flush=True)
        rows = [measure(count, bundle, options) for count in options.replicas]
    write(options.out, facts, rows)
    failed = [row for row in rows if row["success_percent"] < 100 or row["requests_per_s"] <= PUBLISHED_RPS]
    if options.require and failed:
        sys.exit(f"Less than 100 % success, or not above {PUBLISHED_RPS} requests/s: {failed}")


def measure(count: int, bundle: Path, options: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="lesion-bench-") as folder:
        replicas = Replicas(Path(folder))
        # Without nginx's limits per address: here all users have the same address.
        plan = Plan(port=free_port(), bundle=str(bundle), storage="none", page_port=None, limited=False)
        replicas.start(count, plan)
        try:
            run_locust(plan.address, options, WARM_UP_S)
            before = usage(replicas)
            (stats, users), seconds = timed(lambda: run_locust(plan.address, options, options.run_time))
            after = usage(replicas)
        finally:
            replicas.stop()
    row = {"replicas": count} | figures(stats)
    for name in ("api", "nginx"):
        row[f"{name}_cpu_ms"] = round(1000 * (after[name] - before[name]) / max(row["requests"], 1), 2)
    row["users_cpu_percent"] = round(100 * users / seconds / available_cores(), 1)
    print("  ".join(f"{name}={value:g}" for name, value in row.items()), flush=True)
    return row


def run_locust(address: str, options: argparse.Namespace, seconds: int) -> tuple[list[dict[str, Any]], float]:
    """Run the users; return Locust's statistics and the CPU seconds that it used."""
    command = [
        sys.executable, "-P", "-m", "locust", "-f", str(LOCUSTFILE), "Visitor", "--headless", "--host", address,
        "--users", str(options.users), "--spawn-rate", f"{options.spawn_rate:g}", "--run-time", f"{seconds}s", "--json",
    ]  # fmt: skip
    environment = os.environ | ({"LESION_LOAD_IMAGES": options.images} if options.images else {})
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout[done.stdout.index("[") :]), cpu


def usage(replicas: Replicas) -> dict[str, float]:
    """Return the CPU seconds that the replicas and nginx have used since they started."""
    nginx = [process for process in replicas.processes if process.name == "nginx"]
    return {"api": cpu_seconds(replicas.apis), "nginx": cpu_seconds(nginx)}


def cpu_seconds(records: list[ProcessRecord]) -> float:
    parents = [psutil.Process(record.pid) for record in records]
    family = [process for parent in parents for process in (parent, *parent.children(recursive=True))]
    return sum(sum(process.cpu_times()[:2]) for process in family)


def figures(stats: list[dict[str, Any]]) -> dict[str, float]:
    """Return the figures of all requests together, from Locust's statistics for each kind of request."""
    times = Counter[float]()
    for kind in stats:
        times.update({float(ms): count for ms, count in kind["response_times"].items()})
    requests, failures = (sum(kind[name] for kind in stats) for name in ("num_requests", "num_failures"))
    seconds = max(kind["last_request_timestamp"] for kind in stats) - min(kind["start_time"] for kind in stats)
    # The times within which these shares were answered; Locust rounds each time to two digits.
    quantiles = np.quantile(list(times.elements()), (0.5, 0.95, 0.99), method="inverted_cdf")
    return {
        "requests": requests,
        "average_ms": round(sum(kind["total_response_time"] for kind in stats) / requests, 1),
        "maximum_ms": round(max(kind["max_response_time"] for kind in stats)),
        **dict(zip(("p50_ms", "p95_ms", "p99_ms"), quantiles.tolist(), strict=True)),
        "requests_per_s": round(requests / seconds, 1),
        # Rounded down: 100 means that not one request failed.
        "success_percent": int(1e4 * (requests - failures) / requests) / 100,
    }


def write(folder: Path, facts: str, rows: list[dict[str, Any]]) -> None:
    """Write the table as CSV, the plot, and a page with both; print the table."""
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame.to_csv(folder / "table.csv", index=False)
    plot(folder / "plot.png", rows)
    table = frame.rename(columns=COLUMNS).to_html(index=False, float_format=lambda value: f"{value:,.10g}")
    picture = base64.b64encode((folder / "plot.png").read_bytes()).decode()
    (folder / "report.html").write_text(
        "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>Replicas behind nginx</title>"
        "<style>body{font:15px sans-serif;margin:2rem}table{border-collapse:collapse}"
        "td,th{border:1px solid #bbb;padding:.3rem .6rem;text-align:right}</style>"
        f"<h1>Replicas behind nginx</h1><p>{html.escape(facts)}</p>{table}"
        f"<img alt='Requests per second and response times by replicas' src='data:image/png;base64,{picture}'></html>\n"
    )
    lines = [list(COLUMNS.values()), ["---:"] * len(COLUMNS)]
    lines += [[f"{row[name]:,.10g}" for name in COLUMNS] for row in rows]
    print("\n".join("| " + " | ".join(line) + " |" for line in lines))
    print(f"Written to {folder}: table.csv, report.html, plot.png")


def plot(path: Path, rows: list[dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    places, labels = range(len(rows)), [f"{row['replicas']}" for row in rows]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.bar(places, [row["requests_per_s"] for row in rows], color="#0f6a8b")
    left.axhline(PUBLISHED_RPS, color="#888", linestyle="--", label="published for 8 replicas, other hardware")
    left.set(xticks=places, xticklabels=labels, xlabel="replicas", ylabel="requests/s")
    left.legend(loc="lower center")
    for name, label in (("p50_ms", "p50"), ("p95_ms", "p95"), ("p99_ms", "p99")):
        right.plot(places, [row[name] for row in rows], marker="o", label=label)
    right.set(xticks=places, xticklabels=labels, xlabel="replicas", ylabel="response time (ms)", ylim=(0, None))
    right.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
