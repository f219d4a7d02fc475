"""Intake: each verdict with its reason, groups that stay on one side, and nothing that is kept twice or lost."""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image as Pillow
from sqlalchemy import func, select, update

from lesion.catalogue.decisions import drop, release, undo
from lesion.catalogue.images import CatalogueError, delete_image, get_image
from lesion.catalogue.label_corrections import correct_label, label_history
from lesion.core.errors import ConfigError, ConflictError, ImageError
from lesion.data.inspection import ImageRecord, examine
from lesion.database.audit import entries
from lesion.database.object_store import StoreError, image_key
from lesion.database.storage import Storage
from lesion.database.store_marker import MARKER
from lesion.database.tables import Generation, Image
from lesion.imaging.decode import read
from lesion.imaging.limits import Limits
from lesion.intake import rules
from lesion.intake.intake import Intake
from lesion.intake.rules import RULES, Case, IntakeSettings, decide
from lesion.intake.uploads import Decision, ModelOpinion, RelatedImage, Upload
from lesion.model.predictor import Prediction, Predictor
from tests.support.images.hostile import encode, gradient
from tests.support.images.loop_images import new_storage, put_picture
from tests.support.images.pictures import picture
from tests.support.paths import REPOSITORY
from tests.support.training_runs import RunFolder

CLASSES = ("a", "b", "c")
SETTINGS = IntakeSettings()
SURE_OF_A = ModelOpinion({"a": 0.95, "b": 0.04, "c": 0.01}, True, 0.5, "v1")


def examined(seed: int = 0, **changes: Any) -> ImageRecord:
    return replace(examine(encode(picture(seed))), **changes)


def known(*, frozen: bool = False, near: bool = True, **changes: Any) -> RelatedImage:
    columns: dict[str, Any] = {
        "sha256": "f" * 64, "pixel_sha256": "p" * 64, "label": "a", "status": "accepted", "split": "train",
        "group_key": "g" * 64, "uploader": "ann",
    }  # fmt: skip
    return RelatedImage(Image(**(columns | changes)), frozen, near)


def verdict(
    label: str = "a", opinion: ModelOpinion | None = SURE_OF_A, *others: RelatedImage, image: ImageRecord | None = None
) -> Decision:
    return decide(Case(Upload(image or examined(), label, "ann", opinion), others, SETTINGS, CLASSES))


# Judging


def test_an_image_without_doubt_is_accepted_into_a_group_of_its_own() -> None:
    made = verdict()
    assert (made.status, made.code, made.reason) == ("accepted", "", "")
    assert made.group_key == examined().sha256
    assert made.split in ("train", "val", "calibration", "gate")
    assert verdict(opinion=None) == made == verdict()


def test_new_groups_are_dealt_by_the_shares() -> None:
    base = examined()
    splits = Counter(verdict(image=replace(base, sha256=f"{number:064x}")).split for number in range(4000))
    for split, share in {"gate": 0.2, "val": 0.08, "calibration": 0.08, "train": 0.64}.items():
        assert splits[split] / 4000 == pytest.approx(share, abs=0.025), split


@pytest.mark.parametrize("label", ["d", "", "A", "../../etc/passwd", "a/"])
def test_an_unknown_label_is_rejected_and_the_classes_are_named(label: str) -> None:
    made = verdict(label)
    assert (made.status, made.code) == ("rejected", "label_unknown")
    assert "a, b, c" in made.reason


REJECTIONS = [
    ("duplicate", "a", [known(pixel_sha256="same")], {"pixel_sha256": "same"}),
    ("duplicate", "a", [known(sha256="same", uploader="bob")], {"sha256": "same"}),
    ("label_conflict", "a", [known(sha256="same", label="b")], {"sha256": "same"}),
    ("label_conflict", "a", [known(pixel_sha256="same", label="b", status="quarantined")], {"pixel_sha256": "same"}),
    ("label_conflict", "a", [known(label="b")], {}),
    ("gate_contamination", "a", [known(split="gate", frozen=True)], {}),
    ("gate_contamination", "a", [known(split="gate", frozen=True, label="b")], {}),
    ("gate_contamination", "a", [known(split="gate", frozen=True, near=False)], {}),
    ("near_duplicate_across_splits", "a", [known(), known(split="val")], {}),
    ("near_duplicate_across_splits", "a", [known(), known(split="gate", near=False)], {}),
    ("deleted_before", "a", [known(sha256="same", status="deleted")], {"sha256": "same"}),
    ("deleted_before", "b", [known(pixel_sha256="same", status="deleted")], {"pixel_sha256": "same"}),
]


@pytest.mark.parametrize(("code", "label", "others", "changes"), REJECTIONS)
def test_rejections(code: str, label: str, others: list[RelatedImage], changes: dict[str, Any]) -> None:
    made = verdict(label, SURE_OF_A, *others, image=examined(**changes))
    assert (made.status, made.code, made.split, made.group_key) == ("rejected", code, "", "")
    assert len(made.reason) > 40


def test_ones_own_file_again_is_answered_as_before() -> None:
    for status in ("accepted", "quarantined"):
        made = verdict("a", None, known(sha256="same", status=status), image=examined(sha256="same"))
        assert (made.status, made.code, made.split) == (status, "already_known", "")


def test_relatives_decide_the_side_and_the_group() -> None:
    for split in ("train", "val", "calibration", "gate", "excluded"):
        made = verdict("a", SURE_OF_A, known(split=split))
        assert (made.status, made.split, made.group_key) == ("accepted", split, "g" * 64)
    made = verdict("a", SURE_OF_A, known(split="excluded"), known(split="val", group_key="v" * 64))
    assert (made.split, made.group_key) == ("val", "v" * 64)
    patient = verdict("a", SURE_OF_A, known(label="b", near=False))  # one patient may have several diagnoses
    assert (patient.status, patient.split) == ("accepted", "train")
    assert verdict("a", SURE_OF_A, known(label="b", status="deleted", split="gate", frozen=True)) == verdict()


def test_a_look_alike_decides_the_side_and_the_group_but_is_no_reason_to_refuse() -> None:
    def judged(*others: RelatedImage, look_alike: RelatedImage) -> Decision:
        return decide(Case(Upload(examined(), "a", "ann", SURE_OF_A), others, SETTINGS, CLASSES, [look_alike.row]))

    frozen = known(split="gate", frozen=True, label="b")
    made = judged(look_alike=frozen)
    assert (made.status, made.split, made.group_key) == ("accepted", "gate", "g" * 64)
    made = judged(known(split="val", group_key="v" * 64), look_alike=frozen)
    assert (made.status, made.split, made.group_key) == ("accepted", "val", "v" * 64)


@pytest.mark.parametrize(
    ("label", "probabilities", "in_domain", "code"),
    [
        ("b", {"a": 0.95, "b": 0.04, "c": 0.01}, True, "label_disputed"),
        ("b", {"a": 0.60, "b": 0.10, "c": 0.30}, True, "label_disputed"),
        ("b", {"a": 0.85, "b": 0.14, "c": 0.01}, True, ""),
        ("b", {"a": 0.50, "b": 0.05, "c": 0.45}, True, ""),
        ("a", {"a": 0.95, "b": 0.04, "c": 0.01}, True, ""),
        ("a", {"a": 0.95, "b": 0.04, "c": 0.01}, False, "out_of_domain"),
        ("b", {"a": 0.95, "b": 0.04, "c": 0.01}, False, "out_of_domain"),
    ],
)
def test_doubts_send_to_quarantine(label: str, probabilities: dict[str, float], in_domain: bool, code: str) -> None:
    made = verdict(label, ModelOpinion(probabilities, in_domain, 1.5, "v1"))
    assert (made.status, made.code) == ("quarantined" if code else "accepted", code)
    assert (len(made.reason) > 30) == bool(code)
    assert made.group_key == examined().sha256


def test_the_champion_s_doubt_of_a_label() -> None:
    opinion = ModelOpinion({"a": 0.95, "b": 0.04, "c": 0.01}, True, 0.5, "v1")
    assert Upload(examined(), "b", "ann", opinion).doubt == pytest.approx(0.96)
    assert Upload(examined(), "a", "ann", opinion).doubt == pytest.approx(0.05)
    assert Upload(examined(), "unknown", "ann", opinion).doubt == 1
    assert Upload(examined(), "a", "ann").doubt is None


def test_a_relative_in_quarantine_under_another_label_is_a_doubt() -> None:
    made = verdict("a", SURE_OF_A, known(label="b", status="quarantined"))
    assert (made.status, made.code) == ("quarantined", "label_disputed")


def test_the_documented_table_lists_the_rules_in_their_order() -> None:
    documented = re.findall(
        r"^``(\w+)`` .* (rejected|quarantined|accepted|as before) +(\w+)$", rules.__doc__, re.MULTILINE
    )
    assert documented == [
        (rule.check.__name__.removeprefix("_"), rule.status or "as before", rule.code) for rule in RULES
    ]


def test_settings_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(ConfigError, match="train"):
        IntakeSettings(holdout=0.9, val=0.1)
    assert instantiate(OmegaConf.load(REPOSITORY / "configs" / "intake" / "default.yaml")) == IntakeSettings()


def test_a_bad_image_is_refused_by_the_decoder() -> None:
    with pytest.raises(ImageError) as caught:
        examine(encode(picture(0)), Limits(max_bytes=100))
    assert caught.value.code == "image_too_many_bytes"


# Taking in


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """One frozen generation of the gate and one open."""
    made = new_storage(tmp_path)
    with made.session() as session:
        session.add_all([Generation(number=1, status="frozen"), Generation(number=2, status="open")])
    return made


@pytest.fixture
def intake(storage: Storage) -> Intake:
    return Intake(storage, CLASSES, SETTINGS)


def send(
    intake: Intake, image: np.ndarray | bytes, label: str = "a", opinion: ModelOpinion | None = None, **fields: Any
) -> Decision:
    data = image if isinstance(image, bytes) else encode(image)
    return intake.process(Upload(examine(data), label, opinion=opinion, **({"uploader": "ann"} | fields)), data)


def stored(storage: Storage) -> list[Image]:
    with storage.session() as session:
        return list(session.scalars(select(Image).order_by(Image.id)))


def altered(image: np.ndarray) -> bytes:
    """A copy as a photographer or a thief makes it: mirrored, darker, smaller, JPEG."""
    copy = Pillow.fromarray(np.ascontiguousarray(image[:, ::-1])).point(lambda value: round(value * 0.9))
    return encode(copy.resize((44, 44), Pillow.Resampling.BICUBIC), "JPEG", quality=80)


def test_an_accepted_image_is_in_the_store_and_the_catalogue(intake: Intake, storage: Storage) -> None:
    data = encode(picture(0))
    outcome = send(intake, data, "b", patient="p7")
    sha256 = examine(data).sha256
    assert (outcome.status, outcome.code, outcome.reason) == ("accepted", "", "")
    [row] = stored(storage)
    assert (row.sha256, row.label, row.status, row.patient) == (sha256, "b", "accepted", "p7")
    assert (outcome.split, outcome.group_key) == (row.split, row.group_key)
    assert (row.width, row.height, row.format, row.bytes, row.uploader) == (48, 48, "PNG", len(data), "ann")
    assert row.generation == (2 if row.split == "gate" else None)
    assert storage.store.get(image_key(sha256)) == data
    with storage.session() as session:
        [entry] = entries(session, subject=sha256)
        assert (entry.actor, entry.action) == ("ann", "image.accepted")


def test_the_same_upload_twice_changes_nothing(intake: Intake, storage: Storage) -> None:
    data = encode(picture(0))
    assert send(intake, data).code == ""
    again = send(intake, data)
    assert (again.status, again.code) == ("accepted", "already_known")
    assert send(intake, picture(0), uploader="bob").code == "duplicate"
    assert send(intake, picture(0), "b").code == "label_conflict"
    assert send(intake, encode(picture(0), "BMP")).code == "duplicate"
    assert len(stored(storage)) == 1
    names = {path.relative_to(storage.files).as_posix() for path in Path(storage.files).rglob("*") if path.is_file()}
    assert names == {MARKER, image_key(examine(data).sha256)}


def test_an_altered_copy_joins_the_group_of_its_original(intake: Intake, storage: Storage) -> None:
    for seed in range(8):
        first, copy = send(intake, picture(seed)), send(intake, altered(picture(seed)))
        assert (first.status, copy.status) == ("accepted", "accepted")
    rows = stored(storage)
    assert len({row.split for row in rows}) > 1
    for original, other in zip(rows[::2], rows[1::2], strict=True):
        assert other.sha256 != original.sha256
        assert (other.group_key, other.split) == (original.sha256, original.split)
        assert other.generation == original.generation


def test_an_altered_copy_of_a_gate_image_is_refused(intake: Intake, storage: Storage, tmp_path: Path) -> None:
    put_picture(storage, tmp_path, 5, split="gate")
    with storage.session() as session:
        session.execute(update(Image).values(generation=1))
    data = altered(picture(5))
    outcome = send(intake, data)
    assert (outcome.status, outcome.code) == ("rejected", "gate_contamination")
    assert "gate set" in outcome.reason
    assert len(stored(storage)) == 1
    assert not storage.store._files.exists(str(Path(storage.files) / image_key(examine(data).sha256)))


def test_images_of_one_patient_stand_on_one_side(intake: Intake, storage: Storage) -> None:
    for seed in range(12):
        assert send(intake, picture(seed), patient=f"p{seed % 3}").status == "accepted"
    sides: dict[str, set[tuple[str, str]]] = {}
    for row in stored(storage):
        sides.setdefault(row.patient, set()).add((row.split, row.group_key))
    assert [len(side) for side in sides.values()] == [1, 1, 1]


def test_quarantine_keeps_the_file_and_leaves_the_gate_alone(intake: Intake, storage: Storage) -> None:
    outcomes = [send(intake, picture(seed), "b", SURE_OF_A) for seed in range(12)]
    assert {(one.status, one.code) for one in outcomes} == {("quarantined", "label_disputed")}
    rows = stored(storage)
    assert "gate" in {row.split for row in rows}
    assert {row.generation for row in rows} == {None}
    held = next(row for row in rows if row.split == "gate")
    assert storage.store.get(image_key(held.sha256))
    with storage.session() as session:
        assert release(session, held.sha256, "admin").generation == 2


def test_a_deleted_image_does_not_come_back(intake: Intake, storage: Storage) -> None:
    data = encode(picture(0))
    send(intake, data)
    delete_image(storage, examine(data).sha256, "admin", "consent withdrawn")
    assert send(intake, picture(0)).code == "deleted_before"
    assert send(intake, encode(picture(0), "BMP")).code == "deleted_before"
    fresh = Intake(storage, CLASSES, SETTINGS)  # its thumbnail is gone
    assert send(fresh, picture(0)).code == "deleted_before"
    assert send(fresh, picture(1)).status == "accepted"


def test_a_dropped_image_does_not_come_back_until_that_is_undone(intake: Intake, storage: Storage) -> None:
    data, copy = encode(picture(0)), altered(picture(0))
    sha256 = examine(data).sha256
    assert send(intake, data, "b", SURE_OF_A).status == "quarantined"
    with storage.session() as session:
        drop(session, sha256, "admin", "a dog")
    fresh = Intake(storage, CLASSES, SETTINGS)
    for server in (intake, fresh):
        assert send(server, data).code == send(server, encode(picture(0), "BMP")).code == "deleted_before"
    assert send(fresh, copy, "a").status == "accepted"  # another file, which nobody has dropped
    with storage.session() as session:
        undo(session, sha256, "admin")
    late = Intake(storage, CLASSES, SETTINGS)
    for server in (intake, fresh, late):
        assert send(server, picture(0), "c").code == "label_conflict"
        assert send(server, data, "b").code == "already_known"


def test_an_upload_through_one_server_is_seen_by_the_other(intake: Intake, storage: Storage) -> None:
    other = Intake(storage, CLASSES, SETTINGS)
    other.refresh()
    send(intake, picture(0))
    assert send(other, altered(picture(0)), "b").code == "label_conflict"


def test_many_at_once_keep_each_image_once(storage: Storage) -> None:
    servers = [Intake(storage, CLASSES, SETTINGS) for _ in range(3)]
    images = [encode(picture(seed)) for seed in range(10)]
    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(lambda number: send(servers[number % 3], images[number % 10]), range(60)))
    assert {one.status for one in outcomes} == {"accepted"}
    assert Counter(one.code for one in outcomes) == {"": 10, "already_known": 50}
    assert len(stored(storage)) == 10


def test_a_store_that_fails_keeps_nothing(storage: Storage, intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(key: str, data: bytes) -> None:
        raise StoreError("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(storage.store, "put", full)
        with pytest.raises(StoreError):
            send(intake, picture(0))
    assert stored(storage) == []
    assert send(intake, picture(0)).status == "accepted"


def test_without_a_first_model_nothing_is_taken(tmp_path: Path) -> None:
    empty = new_storage(tmp_path)
    with pytest.raises(CatalogueError) as caught:
        send(Intake(empty, CLASSES, SETTINGS), picture(0))
    assert caught.value.code == "catalogue_empty"
    assert send(Intake(empty, CLASSES, SETTINGS), picture(0), "d").code == "label_unknown"


def test_an_image_that_is_always_taken_elsewhere_is_said_so(
    intake: Intake, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lesion.intake.intake.add_image", lambda session, row: False)
    with pytest.raises(ConflictError) as caught:
        send(intake, picture(0))
    assert caught.value.code == "image_contested"


def test_the_champion_judges_what_it_was_trained_for(run_folder: RunFolder, storage: Storage) -> None:
    """The opinion of a real, tiny model: its own kind of image is taken, a colour chart waits."""
    predictor = Predictor.load(run_folder.bundle_path, "cpu", precision="f32")
    manifest = run_folder.manifest
    taker = Intake(storage, manifest.classes, SETTINGS)
    rows = manifest.split("calibration")
    for data, label in [
        *((read(manifest.root / str(row.path)), row.label) for row in rows.itertuples()),
        (encode(gradient()), rows["label"][0]),
    ]:
        [answer] = predictor.predict([data])
        assert isinstance(answer, Prediction)
        opinion = ModelOpinion(answer.probabilities, answer.in_domain, answer.domain_distance, answer.model_version)
        outcome = send(taker, data, label, opinion)
        assert outcome.code == ("" if answer.in_domain else "out_of_domain") or outcome.code == "label_disputed"
    assert outcome.code == "out_of_domain"
    with storage.session() as session:
        accepted = session.scalar(select(func.count()).where(Image.status == "accepted"))
        assert accepted is not None
        assert accepted > len(rows) / 2


# Corrections


def correcting(label: str, *others: RelatedImage, **changes: Any) -> Decision:
    upload = Upload(examined(**changes), label, "ann", SURE_OF_A, may_correct=True)
    return decide(Case(upload, others, SETTINGS, CLASSES))


def test_who_may_correct_labels_changes_that_of_the_same_picture_and_no_other() -> None:
    for status in ("accepted", "quarantined"):
        made = correcting("b", known(sha256="same", status=status), sha256="same")
        assert (made.status, made.code, made.corrected, made.split) == (status, "label_corrected", ("same",), "")
        assert made.reason == "The label of this image was a and is b now."
    made = correcting("b", known(pixel_sha256="same"), pixel_sha256="same")
    assert (made.code, made.corrected, made.known_as) == ("label_corrected", ("f" * 64,), "f" * 64)
    assert correcting("a", known(sha256="same"), sha256="same").code == "already_known"
    assert correcting("b", known()).code == "label_conflict"  # a near-duplicate is another image
    assert correcting("d", known(sha256="same"), sha256="same").code == "label_unknown"
    assert correcting("b", known(sha256="same", status="deleted"), sha256="same").code == "deleted_before"


def test_a_correction_tells_of_copies_that_keep_the_old_label() -> None:
    others = [known(sha256="same"), known(sha256="e" * 64), known(sha256="d" * 64, near=False)]
    made = correcting("b", *others, sha256="same")
    assert made.reason == "The label of this image was a and is b now. 1 near-duplicate of it is still a."


def test_a_correction_and_one_back_are_kept_with_who_and_when(intake: Intake, storage: Storage) -> None:
    data = encode(picture(0))
    send(intake, data)
    sha256 = examine(data).sha256
    assert send(intake, data, "b", uploader="bob").code == "label_conflict"  # he may not
    before = stored(storage)[0]
    assert send(intake, data, "b", uploader="eve", may_correct=True).code == "label_corrected"
    [row] = stored(storage)
    assert (row.label, row.status, row.split, row.uploader) == ("b", "accepted", before.split, "ann")
    assert row.changed_at > before.changed_at
    assert send(intake, encode(picture(0), "BMP"), "a", uploader="bob", may_correct=True).code == "label_corrected"
    assert stored(storage)[0].label == "a"
    with storage.session() as session:
        changes = label_history(session, sha256)
        actions = [entry.action for entry in entries(session, subject=sha256)]
    assert [(each["actor"], each["was"], each["label"]) for each in changes] == [("eve", "a", "b"), ("bob", "b", "a")]
    assert changes[0]["at"] < changes[1]["at"]
    assert actions == ["image.accepted", "image.label_corrected", "image.label_corrected"]
    assert intake.judge(Upload(examine(data), "c", "eve", may_correct=True)).code == "label_corrected"
    assert stored(storage)[0].label == "a"  # only judged


def test_a_quarantined_image_is_relabeled_and_still_waits(intake: Intake, storage: Storage) -> None:
    data = encode(picture(0))
    assert send(intake, data, "b", SURE_OF_A).status == "quarantined"
    outcome = send(intake, data, "c", uploader="eve", may_correct=True)
    assert (outcome.status, outcome.code) == ("quarantined", "label_corrected")
    [row] = stored(storage)
    assert (row.label, row.status) == ("c", "quarantined")
    with storage.session() as session:
        release(session, row.sha256, "eve", "a")
        assert [each["label"] for each in label_history(session, row.sha256)] == ["c", "a"]


def test_a_correction_never_changes_a_frozen_part_of_the_gate_set(
    intake: Intake, storage: Storage, tmp_path: Path
) -> None:
    sha256 = put_picture(storage, tmp_path, 5, split="gate")
    with storage.session() as session:
        session.execute(update(Generation).where(Generation.number == 2).values(status="frozen"))
        session.add(Generation(number=3, status="open"))
    outcome = send(intake, picture(5), "b", uploader="eve", may_correct=True)
    assert outcome.reason == (
        "The label of this image was a and is b now. It leaves the part of the gate set that models were compared on, "
        "and joins the next one."
    )
    with storage.session() as session:
        row = get_image(session, sha256)
        assert (row.label, row.split, row.generation) == ("b", "gate", 3)
        detail = entries(session, subject=sha256)[-1].detail
    assert detail == {"label": "b", "was": "a", "split": "gate", "generation": 3, "left": 2}
    send(intake, picture(5), "a", uploader="eve", may_correct=True)
    with storage.session() as session:  # never back into the frozen part, and never into the training data
        row = get_image(session, sha256)
        assert (row.label, row.split, row.generation) == ("a", "gate", 3)


def test_an_image_that_is_deleted_meanwhile_is_not_relabeled(storage: Storage, tmp_path: Path) -> None:
    sha256 = put_picture(storage, tmp_path, 5)
    delete_image(storage, sha256, "ann", "by mistake")
    with storage.session() as session, pytest.raises(CatalogueError, match="was deleted"):
        correct_label(session, sha256, "eve", "b")
