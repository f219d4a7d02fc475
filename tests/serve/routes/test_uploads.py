"""Uploads, feedback, quarantine and keys over HTTP, against a real server with its storage."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from lesion.auth import api_keys
from lesion.catalogue.images import get_image
from lesion.core.files import bytes_sha256
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.identity.identity_key import open_pseudonyms
from lesion.imaging.decode import decode
from lesion.phantom.folder import generate
from tests.support.archives import zipped
from tests.support.images.hostile import encode, pixel_hash
from tests.support.servers.app import refusal
from tests.support.servers.serving import SCRIPT, ServerProcess, eventually

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process

KINDS = ("accepted", "quarantined", "rejected")
BODY = 2 * 2**20
# Whatever label is not the champion's own answer is disputed: so a tiny model's opinion is known beforehand.
SETTINGS = (
    "storage=local", "worker=false", "server.workers=2", "server.precision=f32", "intake.dispute_confidence=0.2",
    "intake.dispute_probability=1", f"server.max_body_bytes={BODY}", f"server.max_upload_bytes={2 * BODY}",
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loop")


@pytest.fixture(scope="module")
def server(bundle_path: Path, root: Path) -> Iterator[ServerProcess]:
    with ServerProcess(bundle_path, *SETTINGS, f"storage_root={root}") as running:
        yield running


@pytest.fixture(scope="module")
def storage(server: ServerProcess, root: Path) -> Storage:
    return Storage(f"sqlite:///{root}/lesion.db", str(root / "files"), root / "cache")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bytes]:
    """Pictures that the model was not trained on, each handed out once."""
    folder = generate(tmp_path_factory.mktemp("new") / "phantoms", patients=64, slices=1, size=64, seed=7, workers=1)
    return iter([path.read_bytes() for path in sorted(folder.glob("*/*.png"))])


class Pool:
    """New pictures by the label that the champion gives them; only those whose kind it knows, each once."""

    def __init__(self, server: ServerProcess, pictures: Iterator[bytes]) -> None:
        self.server = server
        self.pictures = pictures
        self.by_label: dict[str, list[bytes]] = {}

    def take(self, count: int) -> tuple[list[bytes], str]:
        """Pictures of one label."""
        while True:
            for label, pictures in self.by_label.items():
                if len(pictures) >= count:
                    self.by_label[label] = pictures[count:]
                    return pictures[:count], label
            data = next(self.pictures)
            answer = self.server.client.post("/predict", content=data, headers={"Content-Type": "image/png"}).json()
            if answer["in_domain"]:
                self.by_label.setdefault(answer["predicted_class"], []).append(data)

    def one(self) -> tuple[bytes, str]:
        """One picture and its label."""
        (data,), label = self.take(1)
        return data, label


@pytest.fixture(scope="module")
def fresh(server: ServerProcess, phantoms: Iterator[bytes]) -> Pool:
    return Pool(server, phantoms)


def upload(server: ServerProcess, files: list[tuple[str, bytes]], headers: Any = None, **form: str) -> httpx.Response:
    parts = [("files", file) for file in files]
    return server.client.post("/upload_training_data", files=parts, data=form, headers=headers)


def judged(response: httpx.Response) -> dict[str, list[dict[str, str]]]:
    assert response.status_code == 200, response.text
    answer: dict[str, list[dict[str, str]]] = response.json()
    assert set(answer) == set(KINDS)
    assert all(set(each) == {"name", "code", "reason"} for each in answer["rejected"])
    return answer


def codes(response: httpx.Response) -> dict[str, tuple[str, str]]:
    """What became of each name, and the code."""
    answer = judged(response)
    return {each["name"]: (kind, each["code"]) for kind in KINDS for each in answer[kind]}


def other_class(server: ServerProcess, label: str) -> str:
    classes: list[str] = server.client.get("/info").json()["classes"]
    return next(name for name in classes if name != label)


def png(side: int, shade: int = 90) -> bytes:
    return encode(Image.new("RGB", (side, side), (shade, shade, shade)))


def everything_below(folder: Path) -> bytes:
    return b"".join(str(path).encode() + path.read_bytes() for path in folder.rglob("*") if path.is_file())


# Uploads


def test_an_upload_is_kept_under_its_hash_and_not_under_its_name(server, storage, root, fresh):
    images, label = fresh.take(3)
    names = [f"mueller-anna-{number}.png" for number in range(3)]
    answer = judged(upload(server, list(zip(names, images, strict=True)), label=label, group="mueller-77"))
    assert [each["name"] for each in answer["accepted"]] == names
    assert answer["quarantined"] == answer["rejected"] == []
    for each, data in zip(answer["accepted"], images, strict=True):
        assert (each["sha256"], each["label"], each["code"]) == (bytes_sha256(data), label, "")
        assert storage.store.get(image_key(each["sha256"])) == data
        with storage.session() as session:
            row = get_image(session, each["sha256"])
        assert (row.status, row.label, row.uploader, row.source, row.patient) == (
            "accepted", label, "local", "upload", open_pseudonyms(storage).patient("mueller-77"),
        )  # fmt: skip
    assert b"mueller" not in everything_below(root)


def test_a_large_image_is_examined_in_a_process_of_its_own(server, storage, phantoms):
    picture = Image.open(io.BytesIO(next(phantoms))).convert("RGB").resize((1600, 1600), Image.Resampling.NEAREST)
    data, label = encode(picture), server.client.get("/info").json()["classes"][0]
    answer = judged(upload(server, [("large.png", data)], label=label))
    (kept,) = answer["accepted"] + answer["quarantined"]
    assert storage.store.get(image_key(kept["sha256"])) == data
    with storage.session() as session:
        row = get_image(session, kept["sha256"])
    assert (row.width, row.height) == (1600, 1600)
    assert row.pixel_sha256 == pixel_hash(decode(data))
    assert any("serve.inference.large_images" in process.cmdline() for process in server.family())
    truncated = codes(upload(server, [("short.png", data[: len(data) // 2])], label=label))
    assert truncated == {"short.png": ("rejected", "image_truncated")}


def test_the_same_upload_again_changes_nothing(server, fresh):
    images, label = fresh.take(2)
    files = [(f"{number}.png", data) for number, data in enumerate(images)]
    first = judged(upload(server, files, label=label))
    before = server.client.get("/training_data").json()
    again = judged(upload(server, files * 2, label=label))
    assert [each["sha256"] for each in again["accepted"]] == [each["sha256"] for each in first["accepted"]] * 2
    assert {each["code"] for each in again["accepted"]} == {"already_known"}
    assert server.client.get("/training_data").json() == before


def test_every_file_is_judged_by_itself(server, fresh):
    data, label = fresh.one()
    response = upload(
        server,
        [("good.png", data), ("empty", b""), ("text.txt", b"not a picture"), ("cut.png", data[: len(data) // 2]),
         ("small.png", png(15)), ("an archive among others.zip", zipped({"a.png": data}))],
        label=label,
    )  # fmt: skip
    found = codes(response)
    assert found.pop("good.png") == ("accepted", "")
    assert found == {
        "empty": ("rejected", "image_empty"),
        "text.txt": ("rejected", "image_not_recognised"),
        "cut.png": ("rejected", "image_truncated"),
        "small.png": ("rejected", "image_too_small"),
        "an archive among others.zip": ("rejected", "archive_not_alone"),
    }
    assert all(len(each["reason"]) > 20 for each in response.json()["rejected"])


@pytest.mark.parametrize("label", ["../../etc/passwd", "nonsense", "GLIOMA", "'; drop table images; --"])
def test_an_unknown_label_is_rejected_and_keeps_nothing(server, root, phantoms, label):
    data = next(phantoms)
    before = sorted(root.rglob("*"))
    assert codes(upload(server, [("../../etc/passwd", data)], label=label)) == {
        "../../etc/passwd": ("rejected", "label_unknown")
    }
    assert [path for path in sorted(root.rglob("*")) if path not in before and "lesion.db" not in path.name] == []


def test_names_are_echoed_without_what_could_mislead(server, phantoms):
    data = next(phantoms)
    names = {
        "a\x1b[31m\u202egnp.exe": "a[31mgnp.exe",
        "x" * 500: "x" * 50 + "…" + "x" * 49,
        "Müller 1.png": "Müller 1.png",
    }
    response = upload(server, [(name, data) for name in names], label="nonsense")
    assert [each["name"] for each in response.json()["rejected"]] == list(names.values())


def test_a_label_that_the_champion_disputes_waits_for_an_admin(server, storage, fresh):
    data, label = fresh.one()
    wrong = other_class(server, label)
    (each,) = judged(upload(server, [("x.png", data)], label=wrong))["quarantined"]
    assert (each["code"], each["label"]) == ("label_disputed", wrong)
    assert label in each["reason"]
    with storage.session() as session:
        assert get_image(session, each["sha256"]).status == "quarantined"


def test_an_image_unlike_all_others_waits_for_an_admin(server, phantoms):
    noise = encode(Image.effect_noise((200, 200), 90).convert("RGB"))
    label = server.client.get("/info").json()["classes"][0]
    ((kind, code),) = codes(upload(server, [("noise", noise)], label=label)).values()
    assert kind == "quarantined"
    assert code in ("out_of_domain", "label_disputed")


# Archives


def test_an_archive_in_folders_of_classes(server, fresh):
    members = {}
    for number in range(4):
        data, label = fresh.one()
        members[f"set/{label}/{number}.png"] = data
    hostile = {
        f"../{label}/slip.png": data, f"/{label}/absolute.png": data, f"{label}/inner.zip": zipped({"a": b"b"}),
        "no-such-class/1.png": data, "top.png": data,
    }  # fmt: skip
    found = codes(upload(server, [("all.zip", zipped(members | hostile))]))
    assert {name: found.pop(name) for name in members} == dict.fromkeys(members, ("accepted", ""))
    assert {kind for kind, _ in found.values()} == {"rejected"}
    assert found[f"{label}/inner.zip"] == ("rejected", "archive_nested")
    assert found["no-such-class/1.png"] == ("rejected", "label_unknown")
    assert found["top.png"] == ("rejected", "label_missing")
    assert set(found) == set(hostile)


def test_an_archive_with_one_label_for_all(server, fresh):
    images, label = fresh.take(2)
    content = zipped({"a.png": images[0], "deep/er/b.png": images[1]})
    assert set(codes(upload(server, [("x", content)], label=label)).values()) == {("accepted", "")}


def test_archives_that_are_refused_as_a_whole(server):
    whole = zipped({"glioma/1.png": b"x" * 1000})
    refusal(upload(server, [("cut.zip", whole[:-30])]), 422, "archive_refused")
    refusal(upload(server, [("many.zip", zipped({f"a/{n}.png": b"" for n in range(1001)}))]), 422, "archive_refused")
    refusal(upload(server, [("none.zip", zipped({}))]), 422, "archive_refused")


def test_a_bomb_is_refused(server):
    found = codes(upload(server, [("b.zip", zipped({"glioma/bomb.png": bytes(19 * 2**20)}))]))
    assert found == {"glioma/bomb.png": ("rejected", "archive_bomb")}


def test_an_archive_without_a_class_is_refused_with_the_layout(server):
    response = upload(server, [("x.zip", zipped({"scans/1.png": png(40), "2.png": png(50)}))])
    refusal(response, 422, "archive_refused")
    assert "'scans' (1 file), no folder (1 file)" in response.json()["detail"]
    assert "├── " in response.json()["detail"]
    refusal(upload(server, [("x.zip", b"Rar!\x1a\x07\x01\x00")]), 422, "archive_refused")


def test_a_dry_run_tells_the_classes_and_stores_nothing(server, storage, root, fresh):
    data, label = fresh.one()
    other = other_class(server, label)
    content = zipped({
        f"{label}/1.png": data, f"{label}/copy.png": data, f"{label}/text.png": b"no image", "unknown/3.png": png(40),
        f"{other}/4.png": png(60), f"{label}/5.png": png(60), "top.png": png(70),
    })  # fmt: skip
    before = everything_below(root / "files")
    status = server.client.get("/training_data").json()["status"]
    answer = server.client.post("/upload_training_data?dry_run=true", files={"files": ("x.zip", content)}).json()
    assert answer["dry_run"] is True
    assert set(answer) == {*KINDS, "dry_run", "classes"}
    assert [each["name"] for each in answer["accepted"]] == [f"{label}/1.png", f"{label}/copy.png"]
    assert answer["classes"][label] == {"accepted": 2, "quarantined": 0, "rejected": 2}
    assert answer["classes"]["unknown"] == {"accepted": 0, "quarantined": 0, "rejected": 1}
    found = {each["name"]: each["code"] for each in answer["rejected"]}
    assert found == {
        f"{label}/text.png": "image_not_recognised", "unknown/3.png": "label_unknown", "top.png": "label_missing",
        f"{label}/5.png": "label_ambiguous", f"{other}/4.png": "label_ambiguous",
    }  # fmt: skip
    assert everything_below(root / "files") == before
    assert server.client.get("/training_data").json()["status"] == status
    assert codes(upload(server, [("x.png", data)], label=label)) == {"x.png": ("accepted", "")}  # as if never seen
    parts = {"files": ("x.png", data)}
    again = server.client.post("/upload_training_data?dry_run=true", files=parts, data={"label": label}).json()
    assert [each["code"] for each in again["accepted"]] == ["already_known"]


def test_a_dry_run_finds_one_picture_under_two_classes(server, fresh):
    data, label = fresh.one()
    with Image.open(io.BytesIO(data)) as picture:
        saved_again = encode(picture.copy(), "BMP")
    content = zipped({f"{label}/1.png": data, f"{other_class(server, label)}/2.bmp": saved_again})
    answer = server.client.post("/upload_training_data?dry_run=1", files={"files": ("x.zip", content)}).json()
    assert [(each["name"], each["code"]) for each in answer["accepted"]] == [(f"{label}/1.png", "")]
    (second,) = answer["rejected"]
    assert second["code"] == "label_conflict"
    assert f"{label}/1.png" in second["reason"]


def test_the_field_label_must_not_contradict_the_folders(server, fresh):
    data, label = fresh.one()
    other = other_class(server, label)
    content = zipped({f"{other}/1.png": data, "2.png": png(33)})
    found = codes(upload(server, [("x.zip", content)], label=label))
    assert found[f"{other}/1.png"] == ("rejected", "label_ambiguous")
    assert found["2.png"][0] != "rejected"


# Feedback


def test_feedback_is_taken_like_an_upload(server, storage, fresh):
    data, label = fresh.one()
    sent = {"files": {"file": ("seen.png", data)}, "data": {"label": label}}
    (each,) = judged(server.client.post("/feedback", **sent))["accepted"]
    with storage.session() as session:
        assert get_image(session, each["sha256"]).source == "feedback"
    (again,) = judged(server.client.post("/feedback", **sent))["accepted"]
    assert again["code"] == "already_known"


# Refused requests


def test_requests_that_make_no_sense(server, phantoms):
    image = ("files", ("x.png", next(phantoms)))
    for path, request, status, code in (
        ("/upload_training_data", {"files": [image]}, 422, "label_missing"),
        ("/upload_training_data", {"files": [image], "data": {"label": "  "}}, 422, "label_missing"),
        ("/upload_training_data", {"files": [image], "data": {"label": "x" * 201}}, 422, "field_invalid"),
        ("/upload_training_data", {"files": [image], "data": {"label": "a", "group": "a\nb"}}, 422, "field_invalid"),
        ("/upload_training_data", {"files": {"other": ("x", b"1")}, "data": {"label": "a"}}, 400, "file_missing"),
        ("/upload_training_data", {"files": {"files": (None, "text")}, "data": {"label": "a"}}, 400, "file_missing"),
        ("/upload_training_data", {"files": [image], "data": {"label": ["a", "b"]}}, 422, "field_repeated"),
        ("/upload_training_data", {"files": {"files": ("data.zip", b"\x1f\x8b\x08")}}, 422, "archive_refused"),
        ("/upload_training_data", {"json": {"label": "a"}}, 415, "media_type_not_supported"),
        ("/upload_training_data", {"content": b"\x89PNG"}, 415, "media_type_not_supported"),
        (
            "/upload_training_data",
            {"files": [("files", ("x", b"1"))] * 1001, "data": {"label": "a"}},
            400,
            "body_malformed",
        ),
        ("/feedback", {"files": [("file", ("x", b"1"))] * 2}, 400, "body_malformed"),
        ("/feedback", {"files": {"file": ("x", b"1")}}, 422, "label_missing"),
    ):
        refusal(server.client.post(path, **request), status, code)


def test_uploads_may_be_larger_than_other_bodies(server):
    label = server.client.get("/info").json()["classes"][0]
    inside = upload(server, [("x", bytes(BODY + 1))], label=label)
    assert codes(inside) == {"x": ("rejected", "image_not_recognised")}
    refusal(upload(server, [("x", bytes(2 * BODY))], label=label), 413, "body_too_large")
    refusal(
        server.client.post("/feedback", files={"file": ("x", bytes(BODY))}, data={"label": label}),
        413,
        "body_too_large",
    )


# Quarantine


@pytest.fixture
def waiting(server: ServerProcess, fresh: Pool) -> tuple[str, str, bytes]:
    """A quarantined image: its hash, the label that the champion gives it, and its bytes."""
    data, label = fresh.one()
    (each,) = judged(upload(server, [("x.png", data)], label=other_class(server, label)))["quarantined"]
    return each["sha256"], label, data


def quarantine(server: ServerProcess) -> list[dict[str, Any]]:
    """Every waiting image, page by page."""
    found: list[dict[str, Any]] = []
    while page := server.client.get(
        "/quarantine", params={"after": found[-1]["id"] if found else 0, "limit": 2}
    ).json()["images"]:
        found += page
    return found


def test_what_waits_is_listed_with_its_reason(server, waiting):
    listed = {each["sha256"]: each for each in quarantine(server)}
    entry = listed[waiting[0]]
    assert (entry["reason_code"], entry["uploader"], entry["status"]) == ("label_disputed", "local", "quarantined")
    assert "thumbnail" not in entry
    assert 0.5 < entry["doubt"] <= 1  # the champion believes another class
    by_doubt = server.client.get("/quarantine", params={"order": "doubt", "limit": 1000}).json()["images"]
    assert {each["sha256"] for each in by_doubt} == set(listed)
    doubts = [each["doubt"] for each in by_doubt]
    assert doubts == sorted(doubts, reverse=True)
    refusal(server.client.get("/quarantine", params={"order": "size"}), 422, "parameter_invalid")


def test_its_picture_can_be_looked_at(server, waiting):
    response = server.client.get(f"/quarantine/{waiting[0]}/thumbnail")
    assert response.headers["content-type"] == "image/png"
    shown = decode(response.content)
    assert shown.shape == (64, 64, 3)
    assert (shown == decode(waiting[2])).all()
    refusal(server.client.get(f"/quarantine/{'0' * 64}/thumbnail"), 404, "image_unknown")
    refusal(server.client.get("/quarantine/..%2F..%2Fetc%2Fpasswd/thumbnail"), 404, "not_found")
    refusal(server.client.get("/quarantine/etc/thumbnail"), 422, "parameter_invalid")


def test_a_released_image_is_learnt_from_under_the_right_label(server, waiting):
    sha256, label, _ = waiting
    before = server.client.get("/training_data").json()["status"]
    refusal(server.client.post(f"/quarantine/{sha256}/release", json={"label": "nonsense"}), 422, "label_unknown")
    released = server.client.post(f"/quarantine/{sha256}/release", json={"label": label}).json()
    assert (released["status"], released["label"]) == ("accepted", label)
    after = server.client.get("/training_data").json()["status"]
    assert after["accepted"] - before["accepted"] == before["quarantined"] - after["quarantined"] == 1
    assert sha256 not in {each["sha256"] for each in quarantine(server)}
    for again in ({}, {"label": label}):  # once is enough
        assert server.client.post(f"/quarantine/{sha256}/release", json=again).json()["label"] == label
    other = {"label": other_class(server, label)}
    refusal(server.client.post(f"/quarantine/{sha256}/release", json=other), 409, "accepted_otherwise")


def test_a_dropped_image_is_refused_and_its_picture_kept(server, storage, waiting):
    sha256, label, data = waiting
    refusal(server.client.post(f"/quarantine/{sha256}/drop", json={"reason": " "}), 422, "parameter_invalid")
    dropped = server.client.post(f"/quarantine/{sha256}/drop", json={"reason": "blurred"}).json()
    assert (dropped["status"], dropped["reason"], dropped["undoable"]) == ("dropped", "blurred", True)
    assert server.client.get(f"/quarantine/{sha256}/thumbnail").status_code == 200
    assert (Path(storage.files) / image_key(sha256)).exists()
    assert codes(upload(server, [("x.png", data)], label=label)) == {"x.png": ("rejected", "deleted_before")}
    refusal(server.client.post(f"/quarantine/{sha256}/release"), 409, "not_quarantined")


def test_a_decision_is_undone_unless_another_one_followed(server, waiting):
    sha256, label, _ = waiting
    before = next(each for each in quarantine(server) if each["sha256"] == sha256)
    refusal(server.client.post(f"/quarantine/{sha256}/undo"), 409, "nothing_to_undo")
    released = server.client.post(f"/quarantine/{sha256}/release", json={"label": label}).json()
    assert (released["decision"]["action"], released["decision"]["actor"]) == ("released", "local")
    seen = {"expected": released["decision"]["id"]}
    for _ in range(2):  # the second time as after an answer that was lost
        undone = server.client.post(f"/quarantine/{sha256}/undo", json=seen).json()
        assert (undone["decision"]["action"], undone["undoable"], undone["versions"]) == ("undone", False, [])
    after = next(each for each in quarantine(server) if each["sha256"] == sha256)
    assert {**after, "changed_at": ""} == {**before, "changed_at": ""}
    dropped = server.client.post(f"/quarantine/{sha256}/drop", json={"reason": "blurred"}).json()
    refusal(server.client.post(f"/quarantine/{sha256}/undo", json=seen), 409, "decision_changed")
    refusal(server.client.post(f"/quarantine/{sha256}/undo", json={"expected": 0}), 422, "parameter_invalid")
    assert server.client.get(f"/images/{sha256}").json()["decision"] == dropped["decision"]
    assert server.client.get("/quarantine/decisions", params={"limit": 1}).json() == {"images": [dropped]}
    assert server.client.post(f"/quarantine/{sha256}/undo").json()["status"] == "quarantined"


def test_what_the_next_retraining_adds_is_counted(server, fresh):
    before = server.client.get("/training_data").json()["next_retrain"]
    data, label = fresh.one()
    assert len(judged(upload(server, [("x.png", data)], label=label))["accepted"]) == 1
    after = server.client.get("/training_data").json()["next_retrain"]
    assert after["images"] + after["held_out"] == before["images"] + before["held_out"] + 1


# Under stress


def test_uploads_at_once_keep_every_image_once(server, fresh):
    images, label = fresh.take(6)
    files = [(f"{number}.png", data) for number, data in enumerate(images)]
    before = server.client.get("/training_data").json()["status"]["accepted"]
    with ThreadPoolExecutor(4) as pool:
        answers = [judged(each) for each in pool.map(lambda _: upload(server, files, label=label), range(4))]
    for answer in answers:
        assert [each["sha256"] for each in answer["accepted"]] == [bytes_sha256(data) for data in images]
    assert server.client.get("/training_data").json()["status"]["accepted"] == before + len(images)


def test_an_upload_outlives_an_inference_worker(server, fresh):
    images, label = fresh.take(4)
    os.kill(server.workers()[0].pid, signal.SIGKILL)  # what it had taken is lost, and asked again of the other one
    answer = judged(upload(server, [(f"{number}.png", data) for number, data in enumerate(images)], label=label))
    assert [each["sha256"] for each in answer["accepted"]] == [bytes_sha256(data) for data in images]
    eventually(lambda: server.client.get("/health").json()["status"] == "ready", 60)


# Keys; from here on the server asks for them


def test_keys_on_a_running_server(server, storage):
    admin = api_keys.create(storage, "boss", "admin", "test")
    ward = api_keys.create(storage, "ward-3", "contributor", "test")
    viewer = api_keys.create(storage, "screen", "viewer", "test")
    head = {each: {"Authorization": f"Bearer {each}"} for each in (admin, ward, viewer)}
    eventually(lambda: server.client.get("/info").status_code == 401, 10)
    refusal(server.client.get("/info"), 401, "key_missing")
    assert server.client.get("/health").status_code == 200
    answer = server.client.post("/predict", content=png(64), headers=head[viewer] | {"Content-Type": "image/png"})
    assert answer.status_code == 200
    label = answer.json()["predicted_class"]
    data = png(64, 91)
    refusal(upload(server, [("x.png", bytes(BODY))], head[viewer], label=label), 403, "role_insufficient")
    (kind, _) = next(iter(codes(upload(server, [("x.png", data)], head[ward], label=label)).values()))
    assert kind in ("accepted", "quarantined")
    listed = server.client.get(f"/images/{bytes_sha256(data)}", headers=head[admin]).json()
    assert listed["uploader"] == f"ward-3 ({ward.split('_')[1]})"
    refusal(server.client.get("/quarantine", headers=head[ward]), 403, "role_insufficient")


def test_a_server_for_other_machines_needs_keys(bundle_path, tmp_path):
    command = [sys.executable, str(SCRIPT), f"bundle={bundle_path}", "host=0.0.0.0", "server.device=cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "keys_missing" in done.stderr
    assert "lesion keys create" in done.stderr
