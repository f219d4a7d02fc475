"""The check of labels before a retraining, on a catalogue of bright and dark pictures."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image as Picture
from sqlalchemy import func, select

from lesion.catalogue.decisions import release, undo
from lesion.catalogue.images import add_image, get_image, images_to_freeze
from lesion.catalogue.import_run import import_manifest
from lesion.catalogue.label_corrections import correct_label
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.database.tables import AuditEntry, Image, SnapshotImage
from lesion.model.predictor import Predictor
from lesion.promotion.gate_settings import GateSettings
from lesion.registry.registry import Registry
from lesion.retraining.jobs import submit
from lesion.retraining.label_check import doubtful_labels
from lesion.retraining.label_check.confident_learning import LabelDoubts, LabeledImages, doubt_labels
from lesion.retraining.label_check.doubtful_labels import LabelCheck, check_labels, find_check
from lesion.retraining.leases import JobCancelledError, claim
from lesion.retraining.stages import RetrainSettings, Stages
from tests.support.bundles.lamp_bundles import CLASSES, lamp, lamp_picture, lamp_pictures
from tests.support.images.loop_images import new_storage, row_of
from tests.support.servers.worker_runs import REQUEST

Put = Callable[..., str]


@pytest.fixture
def champion(tmp_path: Path) -> Path:
    return lamp(tmp_path / "champion", 0.05)


@pytest.fixture
def storage(tmp_path: Path, champion: Path) -> Iterator[Storage]:
    """A catalogue of 30 bright and 30 dark pictures, whose champion is always right."""
    made = new_storage(tmp_path / "loop")
    snapshot = import_manifest(made, lamp_pictures(tmp_path / "pictures", 30), progress=False)
    registry = Registry(made)
    registry.deploy_first(registry.register(champion, snapshot_id=snapshot), "ann", "the first")
    yield made
    made.engine.dispose()


@pytest.fixture
def put(storage: Storage, tmp_path: Path) -> Put:
    """Upload a picture, bright if its number is even, under a label; return its hash."""

    def upload(number: int, label: str, **fields: object) -> str:
        file = tmp_path / f"{number}.png"
        Picture.fromarray(lamp_picture(number)).save(file)
        row = row_of(file, label, **fields)
        storage.store.put(image_key(row.sha256), file.read_bytes())
        with storage.session() as session:
            assert add_image(session, row)
        return row.sha256

    return upload


def right(number: int) -> str:
    return CLASSES[number % 2]


def wrong(number: int) -> str:
    return CLASSES[1 - number % 2]


def go_on() -> None:
    """Nobody cancels the check."""


def row(storage: Storage, sha256: str) -> Image:
    with storage.session() as session:
        return get_image(session, sha256)


def test_wrong_labels_wait_for_a_review_and_the_others_stay(storage: Storage, put: Put, champion: Path) -> None:
    good = [put(number, right(number)) for number in range(200, 220)]
    bad = [put(number, wrong(number)) for number in range(300, 304)]
    held_out = [put(number, "bright", split="gate") for number in (400, 401, 402)]
    check = check_labels(storage, "job", champion, go_on)
    assert check == LabelCheck(images=27, doubted=5)
    for sha256 in (*good, held_out[0], held_out[2]):
        kept = row(storage, sha256)
        assert (kept.status, kept.reason_code) == ("accepted", "")
        assert kept.doubt is not None
        assert 0 <= kept.doubt < 0.2
    for sha256 in (*bad, held_out[1]):
        found = row(storage, sha256)
        assert (found.status, found.reason_code, found.generation) == ("quarantined", "label_doubted", None)
        assert found.doubt is not None
        assert found.doubt > 0.7
    assert "the label bright is right with a probability of" in row(storage, held_out[1]).reason
    assert "and dark with" in row(storage, held_out[1]).reason
    with storage.session() as session:
        assert session.scalar(select(func.count()).where(Image.source != "upload", Image.doubt.is_not(None))) == 0
        frozen = images_to_freeze(session, 2, renew_images=1)
        assert frozen == []  # the image before the doubted one is of a single class
        assert "27 uploaded images" in check.sentence()
        assert "5 of them wait in quarantine" in check.sentence()


def test_a_job_that_runs_again_gets_what_it_found(storage: Storage, put: Put, champion: Path) -> None:
    put(300, wrong(300))
    first = check_labels(storage, "job", champion, go_on)
    put(301, wrong(301))
    assert check_labels(storage, "job", champion, go_on) == first == LabelCheck(images=1, doubted=1)
    with storage.session() as session:
        assert find_check(session, "job") == first
        assert find_check(session, "other") is None
        actions = select(AuditEntry.action).where(AuditEntry.actor == "job").order_by(AuditEntry.id)
        assert session.scalars(actions).all() == ["image.label_doubted", "labels.checked"]


def test_nothing_is_computed_without_new_uploads(
    storage: Storage, put: Put, champion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Path] = []
    load = Predictor.load

    def counted(path: Path, **options: object) -> Predictor:
        loads.append(path)
        return load(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Predictor, "load", counted)
    assert check_labels(storage, "job 0", champion, go_on) == LabelCheck()
    assert loads == []
    put(200, right(200))
    put(300, wrong(300))
    assert check_labels(storage, "job 1", champion, go_on) == LabelCheck(images=2, doubted=1)
    assert check_labels(storage, "job 2", champion, go_on) == LabelCheck()
    assert len(loads) == 1
    put(301, wrong(301))
    assert check_labels(storage, "job 3", champion, go_on) == LabelCheck(images=2, doubted=1)
    assert len(loads) == 2


def test_what_a_check_doubted_is_still_fitted_on_and_what_the_intake_refused_is_not(
    storage: Storage, put: Put, champion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubted, disputed = put(300, wrong(300)), put(301, wrong(301), status="quarantined", reason_code="label_disputed")
    check_labels(storage, "job 1", champion, go_on)
    put(200, right(200))
    asked: list[LabeledImages] = []

    def noted(images: LabeledImages) -> LabelDoubts:
        asked.append(images)
        return doubt_labels(images)

    monkeypatch.setattr(doubtful_labels, "doubt_labels", noted)
    assert check_labels(storage, "job 2", champion, go_on) == LabelCheck(images=1, doubted=0)
    [images] = asked
    assert (images.waiting.sum(), (~images.trusted).sum()) == (1, 3)
    for sha256 in (doubted, disputed):
        doubt = row(storage, sha256).doubt
        assert doubt is not None
        assert doubt > 0.7


def test_what_a_person_reviewed_is_not_doubted_again(storage: Storage, put: Put, champion: Path) -> None:
    released, corrected = put(300, wrong(300)), put(301, right(301))
    check_labels(storage, "job 1", champion, go_on)
    with storage.session() as session:
        release(session, released, "eve")  # she insists
        correct_label(session, corrected, "eve", wrong(301))
    put(302, wrong(302))
    assert check_labels(storage, "job 2", champion, go_on) == LabelCheck(images=1, doubted=1)
    assert [row(storage, sha256).status for sha256 in (released, corrected)] == ["accepted"] * 2
    assert row(storage, corrected).doubt is None  # it was that of the label before
    with storage.session() as session:
        undo(session, released, "eve")
    assert (row(storage, released).status, row(storage, released).reason_code) == ("quarantined", "label_doubted")


def test_a_check_that_is_canceled_changes_nothing(storage: Storage, put: Put, champion: Path) -> None:
    doubtful = put(300, wrong(300))
    for number in range(320, 340):
        put(number, right(number))
    calls = 0

    def cancel_before_the_end() -> None:
        nonlocal calls
        calls += 1
        if calls == 4:  # 21 uploads and 48 others are three batches; then the doubts would be stored
            raise JobCancelledError("job")

    with pytest.raises(JobCancelledError):
        check_labels(storage, "job", champion, cancel_before_the_end)
    assert (row(storage, doubtful).status, row(storage, doubtful).doubt) == ("accepted", None)
    assert check_labels(storage, "job", champion, go_on) == LabelCheck(images=21, doubted=1)


def test_an_image_that_is_reviewed_or_gone_meanwhile_stays_as_it_is(storage: Storage, put: Put, champion: Path) -> None:
    reviewed, gone, other = put(300, wrong(300)), put(302, wrong(302)), put(304, wrong(304))

    def review_meanwhile() -> None:
        with storage.session() as session:
            correct_label(session, reviewed, "eve", right(300))
        storage.store.delete(image_key(gone))

    assert check_labels(storage, "job", champion, review_meanwhile) == LabelCheck(images=1, doubted=1)
    assert [row(storage, sha256).status for sha256 in (reviewed, gone, other)] == [
        "accepted", "accepted", "quarantined",
    ]  # fmt: skip
    assert row(storage, reviewed).label == right(300)


def test_too_few_groups_are_said_and_nothing_is_doubted(tmp_path: Path, champion: Path) -> None:
    storage = new_storage(tmp_path / "small")
    snapshot = import_manifest(storage, lamp_pictures(tmp_path / "few", 5), progress=False)
    Registry(storage).register(champion, snapshot_id=snapshot)
    file = tmp_path / "upload.png"
    Picture.fromarray(lamp_picture(301)).save(file)
    uploaded = row_of(file, "bright", split="gate")
    storage.store.put(image_key(uploaded.sha256), file.read_bytes())
    with storage.session() as session:
        assert add_image(session, uploaded)
    check = check_labels(storage, "job", champion, go_on)
    assert check == LabelCheck(images=1, doubted=0, unjudged=("bright", "dark"))
    assert "Labels of bright, dark were not judged" in check.sentence()
    assert row(storage, uploaded.sha256).status == "accepted"


def test_a_retraining_does_not_learn_from_doubtful_labels(storage: Storage, put: Put, tmp_path: Path) -> None:
    good, bad = put(200, right(200)), put(300, wrong(300))
    job_id = submit(storage, REQUEST, "ann")[0].id
    claim(storage, job_id, "w1")
    stages = Stages(storage, RetrainSettings(), GateSettings(), "w1")
    stages.begin(job_id)
    assert stages.snapshot(job_id) == stages.snapshot(job_id) == job_id
    with storage.session() as session:
        learned = set(session.scalars(select(SnapshotImage.sha256).where(SnapshotImage.snapshot_id == job_id)))
        assert find_check(session, job_id) == LabelCheck(images=2, doubted=1)
    assert good in learned
    assert bad not in learned
