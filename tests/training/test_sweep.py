"""Sweeps: a ranked table at the end."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lesion.training.sweep import rank
from tests.support.paths import REPOSITORY
from tests.support.training_runs import PHANTOMS, TINY


def job(folder: Path, name: str, overrides: list[str], value: float | None) -> None:
    (folder / name / ".hydra").mkdir(parents=True)
    (folder / name / ".hydra" / "overrides.yaml").write_text("\n".join(f"- {item}" for item in overrides))
    if value is not None:
        (folder / name / "metrics.json").write_text(json.dumps({"metrics": {"val/f1_macro": value}}))


def test_jobs_are_ranked_and_failed_ones_come_last(tmp_path: Path) -> None:
    job(tmp_path, "0", ["model.lr=0.1", "+finetune.x=2"], 0.5)
    job(tmp_path, "1", ["model.lr=0.2"], None)
    job(tmp_path, "2", ["model.lr=0.3"], 0.9)
    rows = rank(tmp_path, "val/f1_macro")
    assert [(row["job"], row["val/f1_macro"]) for row in rows] == [("2", 0.9), ("0", 0.5), ("1", None)]
    assert rows[1]["finetune.x"] == "2"
    assert [row["job"] for row in rank(tmp_path, "val/f1_macro", minimize=True)] == ["0", "2", "1"]


@pytest.mark.slow
def test_multirun_prints_and_writes_the_ranking(data_dir: Path, run: object, tmp_path: Path) -> None:
    """A real sweep from the command line, of the run's phantoms."""
    command = [sys.executable, "scripts/train.py", "-m", *PHANTOMS, *TINY, f"paths.data={data_dir}"]
    command += [f"paths.outputs={tmp_path}", "trainer.max_epochs=1", "model.lr=1e-3,1e-2", "finetune.unfreeze_last=50"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr[-3000:]
    [ranking] = tmp_path.glob("*/sweep_*/ranking.csv")
    rows = list(csv.DictReader(ranking.open()))
    assert {float(row["model.lr"]) for row in rows} == {1e-3, 1e-2}
    values = [float(row["val/f1_macro"]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert "2 jobs by val/f1_macro" in result.stdout
