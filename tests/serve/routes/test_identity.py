"""Names, ids and dates that are planted in what is sent: nothing of them is in any file, table, log or answer."""

import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lesion.catalogue.import_run import import_manifest
from lesion.core.files import bytes_sha256
from lesion.database.storage import Storage
from lesion.registry.registry import Registry
from tests.support.archives import zipped
from tests.support.bundles.lamp_bundles import lamp, lamp_pictures
from tests.support.images.loop_images import new_storage
from tests.support.images.pictures import picture
from tests.support.servers.serving import ServerProcess, eventually
from tests.support.training_subprocess import CONFIG, STAND_IN

pytest.importorskip("pydicom", reason="the extra lesion[dicom] is optional")
from tests.support.images.dicom_files import dicom_file

pytestmark = pytest.mark.slow
NAME, ID, DAY = "Quillfeather", "MRN-7710482", "19530417"
PHOTOS = ("JPEG", "PNG", "WEBP", "TIFF")
SECRETS = (NAME, ID, DAY, "1.2.840.99.7710482", "Ward 9 of Saint Bruno")


def bright(seed: int, patient: str = ID, **elements: Any) -> bytes:
    """A DICOM file with all that hospitals write into one."""
    pixels = (picture(seed)[..., 0] * 0.4 + 150).astype(np.uint8)
    written = {
        "PatientName": f"{NAME}^Ada", "PatientID": patient, "PatientBirthDate": DAY, "StudyDate": DAY,
        "AccessionNumber": ID, "ReferringPhysicianName": f"{NAME}^Otto", "InstitutionName": "Ward 9 of Saint Bruno",
        "StudyDescription": f"Head of {NAME}", "StudyInstanceUID": "1.2.840.99.7710482.1",
        "SeriesInstanceUID": "1.2.840.99.7710482.1.1", "SOPInstanceUID": f"1.2.840.99.7710482.1.1.{seed}",
        "Modality": "MR", "Manufacturer": "ACME", "PixelSpacing": ["0.5", "0.5"],
    }  # fmt: skip
    return dicom_file(pixels, **written | elements)


def photo(seed: int, kind: str) -> bytes:
    """A photo as a phone writes it, with who took it, where and when."""
    facts = Image.Exif()
    facts[272], facts[274], facts[315], facts[306] = "Seven", 6, f"{NAME}, Ada", f"{DAY} {ID}"
    facts.get_ifd(0x8825)[27] = b"Ward 9 of Saint Bruno"
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", f"{NAME} {ID} 1.2.840.99.7710482")
    buffer = io.BytesIO()
    picture_of = Image.fromarray((picture(seed) * 0.4 + 150).astype(np.uint8))
    picture_of.save(buffer, kind, exif=facts, **({"pnginfo": texts} if kind == "PNG" else {}))
    return buffer.getvalue()


def found_in(data: bytes) -> set[str]:
    """The secrets in some bytes, as text, as UTF-16, and in what DICOM and ZIP files and PNG chunks deflate."""
    inflated = [data]
    marked = data.find(b"DICM")
    if marked == 128:
        length = int.from_bytes(data[140:144], "little")
        with suppress(zlib.error):
            inflated.append(zlib.decompress(data[144 + length :], -zlib.MAX_WBITS))
    return {s for s in SECRETS for each in inflated if s.encode() in each or s.encode("utf-16-le") in each}


def found_below(folder: Path) -> dict[str, set[str]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    found = {str(path): found_in(str(path).encode()) | found_in(path.read_bytes()) for path in files}
    return {path: secrets for path, secrets in found.items() if secrets}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("identity") / "loop"


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[ServerProcess]:
    """With a storage, whose retraining is a stand-in."""
    storage, folder = new_storage(root), root.parent
    snapshot = import_manifest(storage, lamp_pictures(folder / "pictures", 30), progress=False)
    registry = Registry(storage)
    first = registry.register(lamp(folder / "wrong", -0.05, config=CONFIG), snapshot_id=snapshot)
    registry.deploy_first(first, "ann", "the first")
    orders = {"bundle": str(lamp(folder / "right", 0.05, config=CONFIG)), "record": str(folder / "record")}
    settings = ("storage=local", f"storage_root={root}", f"worker_settings=[\"retrain.script='{STAND_IN}'\"]")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LESION_STAND_IN", json.dumps(orders))
        with ServerProcess("null", *settings, "intake.dispute_confidence=1", "log_level=debug") as running:
            yield running


@pytest.fixture(scope="module")
def storage(server: ServerProcess, root: Path) -> Storage:
    return new_storage(root)


def send(server: ServerProcess, files: list[tuple[str, bytes]], path: str = "/upload_training_data") -> Any:
    field = "file" if path == "/feedback" else "files"
    answer = server.client.post(path, files=[(field, file) for file in files], data={"label": "bright"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def record_of(server: ServerProcess, sha256: str) -> dict[str, Any]:
    answer = server.client.get(f"/images/{sha256}")
    assert answer.status_code == 200, answer.text
    row: dict[str, Any] = answer.json()
    return row


def test_nothing_that_was_planted_is_anywhere(server: ServerProcess, root: Path) -> None:
    name = f"{NAME}_{DAY}.dcm"
    answers = [
        send(server, [(name, bright(1)), (name, bright(2))]),
        send(server, [(name, bright(3))], "/feedback"),
        send(server, [(name, bright(4)[:-400]), (name, bright(5, NumberOfFrames=2)), (name, b"no picture")]),
        send(server, [(name, bright(6, BurnedInAnnotation="YES"))]),
        send(server, [(name, bright(1))]),
        send(server, [(name, photo(1050 + number, kind)) for number, kind in enumerate(PHOTOS)]),
    ]
    assert [len(answer["accepted"]) for answer in answers] == [2, 1, 0, 0, 1, 4]
    assert [len(answer["rejected"]) for answer in answers] == [0, 0, 3, 0, 0, 0]
    archive = zipped({f"{NAME}/bright/{ID}-{n}.dcm": bright(n) for n in (7, 8)}, zipfile.ZIP_DEFLATED)
    sent = server.client.post("/upload_training_data", files={"files": (f"{NAME}.zip", archive)})
    assert len(sent.json()["accepted"]) == 2
    grouped = server.client.post(
        "/upload_training_data", files={"files": (name, bright(9, ""))}, data={"label": "bright", "group": ID}
    )
    for query in ("", "?explain=true"):
        assert server.client.post(f"/predict{query}", content=bright(10)).status_code == 200
    server.client.post("/predict", content=bright(11)[:-400])
    server.client.post("/predict_batch", files=[("files", (name, bright(n))) for n in (12, 13)])
    job = server.client.post("/retrain", json={"epochs": 2, "batch_size": 8, "learning_rate": 0.01}).json()["job_id"]
    eventually(lambda: server.client.get(f"/retrain_status/{job}").json()["state"] == "promoted", 120)

    shown = [server.client.get(path) for path in ("/metrics", "/quarantine", "/training_data", "/dataset/stats")]
    kept = [image["sha256"] for answer in [*answers, sent.json(), grouped.json()] for image in answer["accepted"]]
    shown += [server.client.get(f"/images/{sha256}{part}") for sha256 in kept for part in ("", "/thumbnail")]
    assert len(kept) == 11
    assert {answer.status_code for answer in shown} == {200}
    assert [found_in(answer.content) for answer in shown] == [set()] * len(shown)
    assert found_in(server.output().encode()) == set()
    assert found_below(root) == {}
    # One patient is one group, whether the file or the form names it.
    groups = {record_of(server, sha256)["patient"] for sha256 in kept} - {""}
    assert len(groups) == 1
    assert found_in(groups.pop().encode()) == set()


def test_the_grep_finds_what_is_not_taken_away() -> None:
    assert found_in(bright(1)) == set(SECRETS)
    assert all({NAME, ID, DAY} <= found_in(photo(1, kind)) for kind in PHOTOS)


def test_a_file_is_known_again_and_deleted_by_its_own_hash(server: ServerProcess) -> None:
    data = bright(20, "MRN-2")
    first = send(server, [("a.dcm", data)])["accepted"][0]
    own = bytes_sha256(data)
    assert first["sha256"] != own
    again = send(server, [("b.dcm", data)])["accepted"][0]
    assert (again["code"], again["sha256"]) == ("already_known", first["sha256"])
    assert record_of(server, own) == record_of(server, first["sha256"])
    gone = server.client.request("DELETE", f"/images/{own}", json={"reason": "the patient asked for it"})
    assert gone.json()["sha256"] == first["sha256"]
    assert record_of(server, own)["status"] == "deleted"
    assert send(server, [("c.dcm", data)])["rejected"][0]["code"] == "deleted_before"
    unknown = server.client.get(f"/images/{'ab' * 32}")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "image_unknown")


def test_text_in_the_picture_is_waited_for_or_warned_of(server: ServerProcess) -> None:
    shown = send(server, [("a.dcm", bright(30, "MRN-3", BurnedInAnnotation="YES"))])["quarantined"][0]
    assert shown["code"] == "burned_in_text"
    possible = send(server, [("b.dcm", bright(31, "MRN-4", Modality="US"))])["accepted"][0]
    assert possible["code"] == "burned_in_text_possible"
    assert "Delete it" in possible["reason"]
    told = send(server, [("c.dcm", bright(32, "MRN-5", Modality="US", BurnedInAnnotation="NO"))])["accepted"][0]
    assert told["code"] == ""


def test_images_of_one_patient_share_a_group(server: ServerProcess) -> None:
    first, second = (send(server, [("a.dcm", bright(seed, "MRN-6"))])["accepted"][0] for seed in (40, 41))
    rows = [record_of(server, image["sha256"]) for image in (first, second)]
    assert rows[0]["group_key"] == rows[1]["group_key"]
    assert rows[0]["split"] == rows[1]["split"]


def test_a_server_with_another_key_does_not_start(server: ServerProcess, root: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LESION_IDENTITY_KEY", "c3" * 32)
        with pytest.raises(RuntimeError, match="identity_key_differs: The storage was used with another identity key"):
            ServerProcess("null", "storage=local", f"storage_root={root}").__enter__()
