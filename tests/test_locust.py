"""The locust file, run for a few seconds against a real server."""

import subprocess
import sys
from pathlib import Path

import pytest
from serving import ServerProcess

LOCUSTFILE = Path(__file__).parents[1] / "serve" / "load" / "locustfile.py"


@pytest.mark.slow
def test_twenty_users_meet_no_failure(bundle_path: Path, tmp_path: Path) -> None:
    with ServerProcess(bundle_path) as server:
        done = subprocess.run(
            [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--users", "20", "--spawn-rate", "20",
             "--run-time", "6s", "--host", server.url, "--csv", str(tmp_path / "load")],
            capture_output=True, timeout=120, check=False, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    total = (tmp_path / "load_stats.csv").read_text().splitlines()[-1].split(",")
    assert total[1] == "Aggregated"
    assert int(total[2]) > 50
    assert int(total[3]) == 0
