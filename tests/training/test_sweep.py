"""Sweeps: a ranked table at the end. tests/project/test_readme.py runs a whole sweep from the command line."""

import json
from pathlib import Path

from lesion.training.sweep import rank


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
