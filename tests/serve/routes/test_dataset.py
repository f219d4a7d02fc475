"""What the training data looks like, over HTTP: aggregates by hand, contact sheets and thumbnails."""

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image as Picture
from sqlalchemy import update
from starlette.testclient import TestClient

from lesion.catalogue import thumbnails
from lesion.catalogue.dataset_stats import RESOLUTIONS, dataset_stats
from lesion.catalogue.decisions import drop
from lesion.catalogue.images import delete_image
from lesion.database.audit import UPLOAD_REJECTED, entries
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.database.tables import AuditEntry
from lesion.imaging.decode import decode
from lesion.imaging.preprocessing import Fit, Preprocessing
from lesion.intake.zip_reader import LabeledFile
from lesion.registry.registry import Registry
from serve.ingest import Origin, judge_files
from tests.support.bundles.bundle_files import MEASURED, bundle_with
from tests.support.images.loop_images import put_picture, storage_with_generation
from tests.support.images.pictures import write
from tests.support.servers.app import client_of, make_app, refusal

CLASSES = ("glioma", "notumor", "Läsion")  # of the bundle that test_bundle makes
DAY = datetime(2026, 11, 24, 23, 59, tzinfo=UTC)
NEXT = datetime(2026, 11, 25, 0, 1, tzinfo=UTC)
Put = Callable[..., str]
LEAKAGE = {"test_images": 10, "leaked": 4, "per_class": {"glioma": {"test": 5, "leaked": 4}}}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return storage_with_generation(tmp_path / "loop")


@pytest.fixture
def app(storage: Storage, tmp_path: Path) -> FastAPI:
    bundle = bundle_with(tmp_path / "bundle", MEASURED | {"leakage": LEAKAGE})
    registry = Registry(storage)
    registry.deploy_first(registry.register(bundle), "ann", "the first")
    return make_app(bundle, storage)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with client_of(app) as made:
        yield made


@pytest.fixture
def put(storage: Storage, tmp_path: Path) -> Put:
    """Put a picture with this label into the catalogue, each time another one; return its hash."""
    seeds = count(1)

    def put(label: str, **fields: Any) -> str:
        source = {"source": "manifest:first"} | fields
        return put_picture(storage, tmp_path / "pictures", next(seeds), label, **source)

    return put


def opened(data: bytes) -> Picture.Image:
    picture = Picture.open(io.BytesIO(data))
    assert picture.format == "PNG"
    return picture


def leakage(client: TestClient) -> tuple[dict[str, Any] | None, bool]:
    answer = client.get("/dataset/stats")
    assert answer.status_code == 200
    return answer.json()["leakage"], answer.json()["leakage_known"]


class TestStats:
    def test_an_empty_catalogue(self, client: TestClient) -> None:
        none = dict.fromkeys(("train", "val", "calibration", "gate", "excluded"), 0)
        assert client.get("/dataset/stats").json() == {
            "images": 0,
            "statuses": {"accepted": 0, "quarantined": 0, "dropped": 0, "deleted": 0},
            "classes": [{"label": label, "images": 0, "share": 0.0, "splits": none} for label in CLASSES],
            "brightness": [],
            "resolutions": [],
            "other_resolutions": 0,
            "enlarged": 0,
            "duplicates": {"groups": 0, "images": 0, "largest": 0, "classes": {}},
            "leakage": LEAKAGE,
            "leakage_known": True,
            "uploads": [],
            "formats": {},
        }

    def test_classes_splits_and_statuses(self, client: TestClient, put: Put, storage: Storage) -> None:
        for split in ("train", "train", "val", "calibration", "gate", "excluded"):
            put("glioma", split=split)
        put("Läsion")
        put("Läsion", status="quarantined")
        delete_image(storage, put("notumor"), "ann", "consent")
        found = client.get("/dataset/stats").json()
        assert found["images"] == 7
        assert found["statuses"] == {"accepted": 7, "quarantined": 1, "dropped": 0, "deleted": 1}
        assert [(row["label"], row["images"], row["share"]) for row in found["classes"]] == [
            ("glioma", 6, 6 / 7),
            ("notumor", 0, 0.0),
            ("Läsion", 1, 1 / 7),
        ]
        assert found["classes"][0]["splits"] == {"train": 2, "val": 1, "calibration": 1, "gate": 1, "excluded": 1}

    def test_brightness_sizes_and_formats(self, client: TestClient, put: Put) -> None:
        for value in (10.0, 20.0, 30.0, 40.0, 100.0):
            put("glioma", brightness=value, width=64, height=48)
        put("Läsion", brightness=7.5, suffix=".jpg")
        put("Läsion", brightness=250.0, status="quarantined", width=1, height=1, format="BMP")
        found = client.get("/dataset/stats").json()
        assert found["brightness"] == [
            {"label": "glioma", "images": 5, "low": 10, "q1": 20, "median": 30, "q3": 40, "high": 100, "mean": 40},
            {"label": "Läsion", "images": 1, "mean": 7.5} | dict.fromkeys(("low", "q1", "median", "q3", "high"), 7.5),
        ]
        assert found["resolutions"] == [
            {"width": 64, "height": 48, "images": 5},
            {"width": 48, "height": 48, "images": 1},
        ]
        assert found["formats"] == {"PNG": 5, "JPEG": 1}

    def test_rare_sizes_are_summed_up(self, client: TestClient, put: Put) -> None:
        put("glioma", width=9, height=9)
        put("glioma", width=9, height=9)
        for number in range(RESOLUTIONS + 2):
            put("glioma", width=100 + number)
        found = client.get("/dataset/stats").json()
        assert len(found["resolutions"]) == RESOLUTIONS
        assert found["resolutions"][0] == {"width": 9, "height": 9, "images": 2}
        assert found["other_resolutions"] == 3

    @pytest.mark.parametrize(("fit", "enlarged"), [("pad", 1), ("crop", 2), ("stretch", 2)])
    def test_what_is_smaller_than_the_model_sees(
        self, put: Put, storage: Storage, fit: Fit, enlarged: int, client: TestClient
    ) -> None:
        for width, height in ((64, 64), (300, 63), (63, 63), (300, 300)):
            put("glioma", width=width, height=height)
        put("glioma", width=1, height=1, status="quarantined")
        with storage.session() as session:
            assert dataset_stats(session, CLASSES, Preprocessing(size=64, fit=fit)).enlarged == enlarged

    def test_groups_of_more_than_one(self, client: TestClient, put: Put) -> None:
        for label, group in (("glioma", "g"), ("glioma", "g"), ("Läsion", "g"), ("glioma", "h"), ("glioma", "h")):
            put(label, group_key=group * 64)
        put("glioma")
        put("notumor", group_key="i" * 64)
        put("notumor", group_key="i" * 64, status="quarantined")
        found = client.get("/dataset/stats").json()["duplicates"]
        assert found == {"groups": 2, "images": 5, "largest": 3, "classes": {"glioma": 4, "Läsion": 1}}

    def test_uploads_by_day(self, client: TestClient, put: Put, storage: Storage, app: FastAPI) -> None:
        put("glioma", created_at=DAY)  # came with the first model
        put("glioma", source="upload", created_at=DAY)
        put("glioma", source="feedback", created_at=NEXT)
        put("glioma", source="upload", created_at=NEXT, status="quarantined")
        cat = put("glioma", source="upload", created_at=DAY, status="quarantined")
        with storage.session() as session:
            drop(session, cat, "ann", "a cat")
        app.state.services.stored.intake.note_rejected(
            {"duplicate": 3, "label_unknown": 1}, source="upload", uploader="ann"
        )
        with storage.session() as session:
            session.execute(update(AuditEntry).where(AuditEntry.action == UPLOAD_REJECTED).values(at=DAY))
        assert client.get("/dataset/stats").json()["uploads"] == [
            {"day": "2026-11-24", "accepted": 1, "quarantined": 0, "rejected": 4},
            {"day": "2026-11-25", "accepted": 1, "quarantined": 1, "rejected": 0},
        ]

    def test_rejected_files_leave_one_entry_a_request(self, app: FastAPI, storage: Storage, tmp_path: Path) -> None:
        picture = write(tmp_path / "one.png", 1).read_bytes()
        files = [
            LabeledFile("a", "cat", picture),
            LabeledFile("b", "dog", picture),
            LabeledFile("c", "cat", b"no image"),
        ]
        state = app.state.services
        answer = asyncio.run(judge_files(state, state.stored.intake, files, Origin("upload", "ann")))
        assert [each.code for each in answer.rejected] == ["label_unknown", "label_unknown", "image_not_recognised"]
        with storage.session() as session:
            [entry] = [each for each in entries(session) if each.action == UPLOAD_REJECTED]
            assert (entry.actor, entry.subject) == ("ann", "upload")
            assert entry.detail == {"codes": {"label_unknown": 2, "image_not_recognised": 1}}
            [day] = dataset_stats(session, CLASSES, Preprocessing()).uploads
            assert (day.accepted, day.quarantined, day.rejected) == (0, 0, 3)

    def test_leakage_is_the_first_models_also_when_another_serves(
        self, client: TestClient, storage: Storage, tmp_path: Path
    ) -> None:
        registry = Registry(storage)
        other = bundle_with(tmp_path / "other", MEASURED, calibration={"temperature": 3.0, "images": 10})
        registry.promote(registry.register(other), "ann", "better")
        assert leakage(client) == (LEAKAGE, True)

    @pytest.mark.parametrize(
        ("measured", "known"), [(None, False), (MEASURED, False), (MEASURED | {"leakage": None}, True)]
    )
    def test_no_split_of_its_own_is_not_the_same_as_not_known(
        self, storage: Storage, tmp_path: Path, measured: dict[str, Any] | None, known: bool
    ) -> None:
        bundle = bundle_with(tmp_path / "silent", measured)
        registry = Registry(storage)
        registry.deploy_first(registry.register(bundle), "ann", "the first")
        with client_of(make_app(bundle, storage)) as client:
            assert leakage(client) == (None, known)

    def test_a_first_model_that_is_lost_takes_nothing_else_along(
        self, client: TestClient, storage: Storage, put: Put, caplog: pytest.LogCaptureFixture
    ) -> None:
        put("glioma")
        bundles = Path(storage.files) / "bundles"
        card = next(bundles.glob("*/MODEL_CARD.md"))
        card.write_text("# forged\n")
        assert leakage(client) == (None, False)
        bundles.rename(bundles.with_name("away"))
        assert leakage(client) == (None, False)
        assert client.get("/dataset/stats").json()["images"] == 1
        assert "the leakage of the first model's data is not known: The store has no files of" in caplog.text
        bundles.with_name("away").rename(bundles)
        card.write_text("# made\n")
        assert leakage(client) == (LEAKAGE, True)


class TestMontage:
    def test_a_grid_of_accepted_images(self, client: TestClient, put: Put) -> None:
        for _ in range(20):
            put("glioma")
        put("Läsion")
        answer = client.get("/dataset/montage", params={"label": "glioma", "images": 12})
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["cache-control"] == "private, no-store"
        sheet = opened(answer.content)
        assert sheet.size == (8 * 116 + 4, 2 * 116 + 4)
        tiles = np.asarray(sheet)[4:, 4:].reshape(2, 116, 8, 116, 3).std((1, 3, 4))
        assert (tiles[0] > 30).all()
        assert (tiles[1, :4] > 30).all()
        assert tiles[1, 4:].max() == 0
        assert opened(client.get("/dataset/montage", params={"label": "Läsion"}).content).size == (120, 120)

    def test_the_draw_is_by_seed(self, client: TestClient, put: Put) -> None:
        for _ in range(20):
            put("glioma")
        first, again, other = (
            client.get("/dataset/montage", params={"label": "glioma", "images": 5, "seed": seed}).content
            for seed in (1, 1, 2)
        )
        assert first == again != other

    def test_only_accepted_images_are_drawn_and_new_ones_change_little(self, put: Put, storage: Storage) -> None:
        kept = [put("glioma") for _ in range(20)]
        put("glioma", status="quarantined")
        put("notumor")

        def drawn(count: int) -> tuple[str, ...]:
            with storage.session() as session:
                return thumbnails.sample(session, "glioma", count, 0)

        assert sorted(drawn(60)) == sorted(kept)
        before = drawn(5)
        put("glioma")
        assert len(set(drawn(5)) & set(before)) >= 4
        delete_image(storage, before[0], "ann", "consent")
        assert before[0] not in drawn(60)

    def test_what_cannot_be_shown_is_left_out(self, client: TestClient, put: Put, storage: Storage) -> None:
        gone, damaged, _ = (put("glioma") for _ in range(3))
        storage.store.delete(image_key(gone))
        (Path(storage.files) / image_key(damaged)).write_bytes(b"no image")
        assert opened(client.get("/dataset/montage", params={"label": "glioma"}).content).size == (120, 120)

    def test_a_sheet_is_kept(self, client: TestClient, put: Put) -> None:
        put("glioma")
        thumbnails.contact_sheet.cache_clear()
        for _ in range(3):
            client.get("/dataset/montage", params={"label": "glioma"})
        assert (thumbnails.contact_sheet.cache_info().misses, thumbnails.contact_sheet.cache_info().hits) == (1, 2)

    def test_refusals(self, client: TestClient) -> None:
        refusal(client.get("/dataset/montage"), 422, "parameter_invalid")
        refusal(client.get("/dataset/montage?label=cat"), 422, "label_unknown")
        refusal(client.get("/dataset/montage?label=..%2F.."), 422, "label_unknown")
        refusal(client.get("/dataset/montage?label=glioma"), 404, "class_empty")
        for images in (0, 61):
            refusal(client.get(f"/dataset/montage?label=glioma&images={images}"), 422, "parameter_invalid")


def test_however_many_ask_two_images_are_decoded_at_once(
    client: TestClient, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = [put("glioma") for _ in range(6)]
    lock, now, most = threading.Lock(), 0, 0

    def counted(*given: Any, **more: Any) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        try:
            return decode(*given, **more)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(thumbnails, "decode", counted)
    paths = [f"/dataset/montage?label=glioma&seed={seed}&images=5" for seed in range(4)]
    paths += [f"/images/{sha256}/thumbnail" for sha256 in hashes[:4]]
    with ThreadPoolExecutor(8) as pool:
        assert [answer.status_code for answer in pool.map(client.get, paths)] == [200] * 8
    assert most == 2


def test_a_store_that_hangs_keeps_nobody(client: TestClient, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = put("glioma")
    woken = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        woken.wait(60)

    monkeypatch.setattr(thumbnails, "decode", hang)
    monkeypatch.setattr(thumbnails, "_WAIT_S", 0.2)
    try:
        for path in (f"/images/{sha256}/thumbnail", "/dataset/montage?label=glioma&seed=99"):
            refusal(client.get(path), 503, "store_slow")
    finally:
        woken.set()


class TestThumbnails:
    def test_a_file_that_was_replaced_is_not_shown(self, client: TestClient, storage: Storage, put: Put) -> None:
        mine, other = put("glioma"), put("glioma")
        files = Path(storage.files)
        (files / image_key(mine)).write_bytes((files / image_key(other)).read_bytes())
        refusal(client.get(f"/images/{mine}/thumbnail"), 500, "file_damaged")
        assert opened(client.get("/dataset/montage", params={"label": "glioma"}).content).size == (120, 120)

    def test_of_any_image_that_is_kept(self, client: TestClient, put: Put) -> None:
        accepted, waiting = put("glioma", side=600), put("glioma", status="quarantined")
        answer = client.get(f"/images/{accepted}/thumbnail")
        assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("image/png", "private, no-store")
        assert opened(answer.content).size == (256, 256)
        assert opened(client.get(f"/images/{waiting}/thumbnail").content).size == (48, 48)
        for sha256 in (accepted, waiting):
            old = client.get(f"/quarantine/{sha256}/thumbnail")
            assert old.content == client.get(f"/images/{sha256}/thumbnail").content

    def test_of_none_that_is_deleted_or_unknown(self, client: TestClient, storage: Storage, put: Put) -> None:
        gone = put("glioma")
        delete_image(storage, gone, "ann", "consent")
        for path in ("images", "quarantine"):
            refusal(client.get(f"/{path}/{gone}/thumbnail"), 404, "image_deleted")
            refusal(client.get(f"/{path}/{'0' * 64}/thumbnail"), 404, "image_unknown")
            refusal(client.get(f"/{path}/..%2Fx/thumbnail"), 404, "not_found")
