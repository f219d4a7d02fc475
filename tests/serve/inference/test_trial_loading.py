"""Bundles are tried out in a process of their own: what ends it, or does not load in it, reaches no worker."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lesion.model.bundle import seal
from lesion.model.bundle_facts import FACTS_FILE
from lesion.model.predictor import Predictor
from serve.inference import trial_loading
from serve.inference.trial_loading import TrialLoading, TrialLoadingError, load_in_another_process
from tests.support.bundles.lamp_bundles import lamp

OPTIONS: dict[str, Any] = {"device": "cpu", "precision": "f32", "threads": 1}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return lamp(tmp_path / "cache" / "lamp", 0.05)


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Count trials, and let them succeed."""
    tried: list[Path] = []
    monkeypatch.setattr(trial_loading, "load_in_another_process", lambda bundle, *_: tried.append(bundle))
    return tried


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    return tmp_path / "marks"


def loading(marks: Path) -> TrialLoading:
    return TrialLoading(lambda path: Predictor.load(path, **OPTIONS), OPTIONS, 60, marks)


def left(marks: Path) -> set[str]:
    return {path.name for path in marks.iterdir()}


def test_a_start_needs_no_trial_and_further_bundles_have_one(
    bundle: Path, marks: Path, trials: list[Path], tmp_path: Path
) -> None:
    worker = loading(marks)
    assert worker(bundle).bundle.name == "lamp"
    assert (trials, left(marks)) == ([], {"lamp.loads"})
    other = lamp(tmp_path / "cache" / "other", 0.02)
    worker(other)
    assert trials == [other]
    worker(bundle)
    loading(marks)(other)  # both were loaded here before
    assert trials == [other]


def test_a_bundle_whose_loading_ended_a_worker_is_tried_out_at_the_next_start(
    bundle: Path, marks: Path, trials: list[Path]
) -> None:
    marks.mkdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mark = marks / f"lamp.loading-{ended.pid}"
    mark.touch()
    alive = marks / f"lamp.loading-{os.getppid()}"
    alive.touch()
    loading(marks)(bundle)
    assert trials == [bundle]
    assert not mark.exists()
    assert alive.exists()


def test_the_mark_is_there_while_a_worker_loads(bundle: Path, marks: Path) -> None:
    seen: list[set[str]] = []

    def load(path: Path) -> Predictor:
        assert path == bundle
        seen.append(left(marks))
        raise MemoryError

    with pytest.raises(MemoryError):
        TrialLoading(load, OPTIONS, 60, marks)(bundle)
    assert seen == [{f"lamp.loading-{os.getpid()}"}]
    assert left(marks) == set()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.kill(os.getpid(), 11)", "ended the process that loaded it in a trial (SIGSEGV)"),
        ("import time; time.sleep(60)", "did not load within 2 seconds in a trial"),
        ("import sys; sys.exit('no such operator')", "did not load in a trial: no such operator"),
        ("import sys; sys.exit(3)", "did not load in a trial: no reason was given"),
    ],
)
def test_a_process_that_does_not_load_it_is_named(bundle: Path, code: str, reason: str) -> None:
    with pytest.raises(TrialLoadingError) as caught:
        load_in_another_process(bundle, OPTIONS, 2, [sys.executable, "-c", code])
    assert reason in caught.value.message
    assert caught.value.code == "bundle_trial_failed"


@pytest.mark.slow
def test_a_good_bundle_loads_and_one_that_asks_for_too_much_memory_does_not(bundle: Path, tmp_path: Path) -> None:
    load_in_another_process(bundle, OPTIONS, 60)
    huge = lamp(tmp_path / "huge", 0.05)
    graph = onnx.load(huge / "model.onnx")
    size = helper.make_tensor("size", TensorProto.INT64, [2], np.array([2**22, 2**22]))
    graph.graph.initializer.append(size)
    graph.graph.node.insert(0, helper.make_node("ConstantOfShape", ["size"], ["ones"]))
    graph.graph.node.insert(1, helper.make_node("ReduceMean", ["ones"], ["mean"], keepdims=0))
    graph.graph.node.insert(2, helper.make_node("Identity", ["mean"], ["unused"]))
    graph.graph.output.append(helper.make_tensor_value_info("unused", TensorProto.FLOAT, []))
    onnx.save(graph, huge / "model.onnx")
    facts = json.loads((huge / FACTS_FILE).read_text("utf-8"))
    (huge / FACTS_FILE).unlink()
    seal(huge, {key: facts[key] for key in facts.keys() - {"format", "files", "version"}})
    with pytest.raises(TrialLoadingError):
        load_in_another_process(huge, OPTIONS, 60)
