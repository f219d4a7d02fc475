"""How long a retraining will take, from jobs written by hand, and the route that says it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from lesion.database.storage import Storage
from lesion.database.tables import (
    Deployment,
    GateLook,
    Generation,
    Image,
    Job,
    ModelVersion,
    Snapshot,
    SnapshotImage,
    Worker,
)
from lesion.model.bundle import Bundle
from lesion.promotion.gate_levels import GateLevels
from lesion.promotion.gate_settings import GateSettings
from lesion.retraining import schedule
from lesion.retraining.estimate import Estimate, estimate, gate_feasibility, obstacle_to_retraining
from lesion.retraining.leases import WorkerHeartbeats, WorkerIdentity
from lesion.retraining.recipe import default_settings
from lesion.retraining.schedule import ScheduledRetraining
from lesion.retraining.stages import Schedule
from tests.support.bundles.registry_bundles import sealed
from tests.support.images.loop_images import new_storage, put_picture
from tests.support.servers.app import client_of, make_app, refusal

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
CONFIG = {"data": {"batch_size": 24}, "model": {"lr": 0.004}}
UNKNOWN = "No retraining has run to its end yet, so there is nothing to estimate from."


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Four images to train on, one for each other purpose, and one that waits."""
    made = new_storage(tmp_path / "loop")
    with made.session() as session:
        session.add(Generation(number=1, status="open"))
    for seed in range(4):
        put_picture(made, tmp_path, seed)
    for seed, split in enumerate(("val", "calibration", "gate", "excluded"), 4):
        put_picture(made, tmp_path, seed, split=split)
    put_picture(made, tmp_path, 8, status="quarantined")
    return made


def retrained(
    storage: Storage, number: int, images: int, epochs: list[float | None], total: float, state: str = "promoted"
) -> None:
    """Write down a job that ended on the given day, trained on so many images and took so many seconds in all."""
    identity = f"{number:032x}"
    began = NOON + timedelta(days=number)
    with storage.session() as session:
        session.add(Snapshot(id=identity, fingerprint="f", manifest_key="k", facts={}))
        session.flush()
        hashes = [row for (row,) in session.query(Image.sha256).order_by(Image.id)]
        for place, sha256 in enumerate(hashes[: images + 1]):
            split = "train" if place < images else "val"
            session.add(SnapshotImage(snapshot_id=identity, sha256=sha256, split=split))
        metrics = [{"epoch": epoch, "val/acc": 0.5, "seconds": value} for epoch, value in enumerate(epochs, 1)]
        session.add(
            Job(
                id=identity,
                state=state,
                stage=state,
                metrics=[{key: value for key, value in row.items() if value is not None} for row in metrics],
                request={"epochs": len(epochs), "batch_size": None, "learning_rate": None},
                requested_by="ann",
                snapshot_id=identity,
                started_at=began,
                finished_at=began + timedelta(seconds=total),
            )
        )


def estimated(storage: Storage, epochs: int) -> Estimate:
    with storage.session() as session:
        return estimate(session, epochs)


def test_without_a_retraining_nothing_is_known(storage: Storage) -> None:
    assert estimated(storage, 3) == Estimate(4, None, UNKNOWN)


def test_one_retraining(storage: Storage) -> None:
    """Two epochs of three images in 12 s and 18 s: 5 s per image and epoch; of the 100 s in all 70 s are the rest."""
    retrained(storage, 1, images=3, epochs=[12.0, 18.0], total=100.0)
    found = estimated(storage, 3)
    assert (found.images, found.seconds) == (4, 5 * 4 * 3 + 70)
    assert found.basis == (
        "Measured on the last retraining: 5,000.0 ms per image and epoch, and 70 s for the rest, such as the "
        "evaluation and the comparison with the champion."
    )
    assert estimated(storage, 100).seconds == 5 * 4 * 100 + 70


def test_the_last_three_retrainings_are_taken_by_their_medians(storage: Storage) -> None:
    """Seconds per image and epoch: 1, 2 and 9; the rest: 40, 10 and 20; the oldest one, 100 and 1000, is left out."""
    retrained(storage, 1, images=1, epochs=[100.0], total=1100.0)
    retrained(storage, 2, images=2, epochs=[2.0, 2.0], total=44.0, state="rejected")
    retrained(storage, 3, images=4, epochs=[8.0], total=18.0)
    retrained(storage, 4, images=1, epochs=[9.0], total=29.0)
    found = estimated(storage, 2)
    assert found.seconds == 2 * 4 * 2 + 20
    assert "the last 3 retrainings: 2,000.0 ms" in found.basis


@pytest.mark.parametrize("state", ["failed", "cancelled", "running", "queued"])
def test_what_did_not_go_all_the_way_says_nothing(storage: Storage, state: str) -> None:
    retrained(storage, 1, images=3, epochs=[12.0], total=100.0, state=state)
    assert estimated(storage, 3).seconds is None


@pytest.mark.parametrize("epochs", [[], [None], [12.0, None]])
def test_a_retraining_whose_epochs_were_not_timed_says_nothing(storage: Storage, epochs: list[float | None]) -> None:
    retrained(storage, 1, images=3, epochs=epochs, total=100.0)
    assert estimated(storage, 3) == Estimate(4, None, UNKNOWN)


def test_a_retraining_whose_data_is_unknown_says_nothing(storage: Storage) -> None:
    retrained(storage, 1, images=0, epochs=[12.0], total=100.0)
    assert estimated(storage, 3).seconds is None


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (CONFIG, {"batch_size": 24, "learning_rate": 0.001}),
        ({"data": {}, "model": {"lr": None}}, {"batch_size": None, "learning_rate": None}),
        ({}, {"batch_size": None, "learning_rate": None}),
        (None, {"batch_size": None, "learning_rate": None}),
    ],
)
def test_what_a_retraining_takes_of_the_champion(tmp_path: Path, config: Any, expected: dict[str, Any]) -> None:
    facts = {} if config is None else {"config": config}
    assert default_settings(Bundle.open(sealed(tmp_path / "bundle", **facts))) == expected


def test_the_route_gives_estimate_defaults_and_bounds(tmp_path: Path, storage: Storage) -> None:
    retrained(storage, 1, images=3, epochs=[12.0, 18.0], total=100.0)
    with client_of(make_app(sealed(tmp_path / "bundle", config=CONFIG), storage)) as client:
        shown = client.get("/retrain_estimate", params={"epochs": 3}).json()
        assert len(shown.pop("basis")) > 50
        assert shown == {
            "epochs": 3,
            "images": 4,
            "seconds": 130.0,
            "summary": {
                "why": "The gate set has no images, so that no new model can be proved better.",
                "next_steps": ["Upload labeled images: a part of them is held out for the gate set."],
            },
            "would_train": False,
            "gate": None,
            "gate_settings": "default",
            "defaults": {"epochs": 5, "batch_size": 24, "learning_rate": 0.001},
            "bounds": {"epochs": [1, 100], "batch_size": [2, 512], "learning_rate": [1e-6, 1.0]},
            "worker": {"running": False, "seen_at": None},
        }
        assert client.get("/retrain_estimate").json()["seconds"] == 5 * 4 * 5 + 70
        for epochs in ("0", "101", "many"):
            refusal(client.get("/retrain_estimate", params={"epochs": epochs}), 422, "parameter_invalid")


def test_without_a_storage_there_is_no_estimate(tmp_path: Path) -> None:
    with client_of(make_app(sealed(tmp_path / "bundle"), None)) as client:
        refusal(client.get("/retrain_estimate"), 404, "no_storage")


def frozen(storage: Storage, generation: int, images: int, folder: Path) -> None:
    """Freeze a generation of some held-out images."""
    with storage.session() as session:
        session.add(Generation(number=generation, status="frozen"))
    for seed in range(images):
        sha256 = put_picture(storage, folder, 1000 * generation + seed, split="gate")
        with storage.session() as session:
            session.query(Image).filter_by(sha256=sha256).one().generation = generation


def test_what_the_gate_could_prove_is_told_before_a_retraining(tmp_path: Path, storage: Storage) -> None:
    with storage.session() as session:
        assert gate_feasibility(session, GateSettings()) is None  # one image waits in the open generation
    frozen(storage, 2, 12, tmp_path)
    frozen(storage, 3, 5, tmp_path)
    with storage.session() as session:
        one = gate_feasibility(session, GateSettings())
        assert one is not None
        # No challenger was promoted on any generation, so both of them decide.
        assert (one.images, one.groups, one.accuracy_known, one.possible) == (17, 17, False, True)
        assert one.level == pytest.approx(0.03)
        enough = gate_feasibility(session, GateSettings(renew_images=1))
        assert enough is not None
        assert enough.images == 17  # the open generation has one class only


def test_a_champion_that_was_compared_on_these_images_is_known(tmp_path: Path, storage: Storage) -> None:
    frozen(storage, 2, 12, tmp_path)
    scores = {"champion": {"accuracy": 0.75}, "challenger": {"accuracy": 0.8}}
    with storage.session() as session:
        session.add(ModelVersion(version="c" * 12, name="m", facts={}, files=[]))
        session.flush()
        session.add(Deployment(follows=0, version="c" * 12, action="first", actor="ann", reason="r"))
    retrained(storage, 1, images=3, epochs=[12.0], total=100.0, state="rejected")
    with storage.session() as session:
        job = session.get_one(Job, f"{1:032x}")
        job.parent, job.verdict = "c" * 12, {"comparisons": [scores | {"generations": [2], "improvable_groups": 3}]}
        session.add(GateLook(generation=2, number=1, job_id=job.id, alpha=0.03))
    with storage.session() as session:
        one = gate_feasibility(session, GateSettings())
    assert one is not None
    assert (one.accuracy, one.accuracy_known, one.possible) == (0.75, True, False)
    assert "errs in only 3 of" in one.reason


def test_the_route_computes_with_the_settings_of_the_worker_that_runs(tmp_path: Path, storage: Storage) -> None:
    """A third of the default level, and one image less than an eighth of the gate's images would do at most."""
    frozen(storage, 2, 12, tmp_path)
    strict = GateSettings(levels=GateLevels(lifetime_rate=0.01))
    with client_of(make_app(sealed(tmp_path / "bundle", config=CONFIG), storage)) as client:
        default = client.get("/retrain_estimate").json()
        assert (default["gate_settings"], default["gate"]["level"]) == ("default", pytest.approx(0.03))
        assert default["summary"]["why"] == default["gate"]["reason"]
        uploads = 5 * default["gate"]["more_groups"]  # a fifth of the uploads is held out
        assert f"about {uploads:,} uploads" in default["summary"]["next_steps"][-2]
        WorkerHeartbeats(storage, WorkerIdentity("w", "elsewhere", 1), gate=strict).beat()
        used = client.get("/retrain_estimate").json()
        assert (used["gate_settings"], used["gate"]["level"]) == ("worker", pytest.approx(0.003))
        assert (default["would_train"], used["would_train"]) == (True, True)
        # The newest heartbeat counts; and what is not understood is not used.
        WorkerHeartbeats(storage, WorkerIdentity("v", "elsewhere", 1), gate=GateSettings(train_in_vain=True)).beat()
        assert client.get("/retrain_estimate").json()["gate"]["level"] == pytest.approx(0.03)
        with storage.session() as session:
            session.get_one(Worker, "v").gate_settings = {"of": "another version"}
        assert client.get("/retrain_estimate").json()["gate_settings"] == "default"


def test_a_worker_that_trains_in_vain_is_told(tmp_path: Path, storage: Storage) -> None:
    frozen(storage, 2, 2, tmp_path)
    with client_of(make_app(sealed(tmp_path / "bundle", config=CONFIG), storage)) as client:
        shown = client.get("/retrain_estimate").json()
        assert (shown["would_train"], shown["gate"]["possible"]) == (False, False)
        WorkerHeartbeats(storage, WorkerIdentity("w", "elsewhere", 1), gate=GateSettings(train_in_vain=True)).beat()
        shown = client.get("/retrain_estimate").json()
        assert (shown["would_train"], shown["gate"]["possible"]) == (True, False)


def scheduled(storage: Storage, **settings: Any) -> ScheduledRetraining:
    return ScheduledRetraining(storage, Schedule(new_images=1), GateSettings(**settings))


def test_an_impossible_retraining_is_not_begun_by_the_schedule_and_told_once(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It begins as soon as the gate set has enough images, without anybody else's request."""
    monkeypatch.setattr(schedule, "_OBSTACLE_S", 0.0)
    with storage.session() as session:
        session.add(Snapshot(id="s", fingerprint="f", manifest_key="k", facts={}))
        session.add(ModelVersion(version="c" * 12, name="m", facts={}, files=[]))
        session.flush()
        session.add(Deployment(follows=0, version="c" * 12, action="first", actor="ann", reason="r"))
    due = scheduled(storage)
    due.request_if_due()
    due.request_if_due()
    assert [record.message for record in caplog.records] == [
        "a retraining is due, but it is not begun: The gate set has no images, so that no new model can be proved "
        "better. Upload labeled images: a part of them is held out for the gate set."
    ]
    frozen(storage, 2, 2, tmp_path)
    due.request_if_due()
    due.request_if_due()
    assert [record.message.count("too small") for record in caplog.records] == [0, 1]
    with storage.session() as session:
        assert session.scalar(select(Job.id)) is None
    frozen(storage, 3, 10, tmp_path)
    due.request_if_due()
    with storage.session() as session:
        assert session.scalars(select(Job.requested_by)).all() == ["schedule"]


def test_the_schedule_waits_between_two_looks_at_what_is_impossible(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def due_now(session: Session, new_images: int) -> bool:
        looks.append(new_images)
        return True

    monkeypatch.setattr(schedule, "retraining_due", due_now)
    due = scheduled(storage)
    for _ in range(3):
        due.request_if_due()
    assert looks == [1]


def test_a_worker_that_is_told_so_trains_in_vain_by_its_schedule_too(storage: Storage) -> None:
    with storage.session() as session:
        assert obstacle_to_retraining(session, GateSettings()) is not None
        assert obstacle_to_retraining(session, GateSettings(train_in_vain=True)) is None
