"""What travels with a model version, over HTTP: its evaluation, report and card, and the bundle as a whole."""

import io
import shutil
import stat
import zipfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from lesion.database.storage import Storage
from lesion.model.bundle import Bundle
from lesion.registry import bundle_cache
from lesion.registry.registry import Registry
from serve.routes.artefacts import zip_files
from tests.support.bundles.bundle_files import MEASURED, bundle_with
from tests.support.images.loop_images import new_storage
from tests.support.servers.app import client_of, make_app

CURVES = {"roc": {"glioma": {"x": [0, 1], "y": [0, 1]}}, "pr": {}, "reliability": {"before": [], "after": []}}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return new_storage(tmp_path / "loop")


@pytest.fixture
def versions(storage: Storage, tmp_path: Path) -> dict[str, str]:
    """A version with curves, which is served, one from before there were any, and one without an evaluation."""
    registry, made = Registry(storage), {}
    for number, (name, measured) in enumerate(
        (("new", MEASURED | {"curves": CURVES}), ("old", MEASURED), ("bare", None))
    ):
        calibration = {"temperature": 1.0 + number, "images": 10}
        made[name] = registry.register(bundle_with(tmp_path / name, measured, calibration=calibration))
    registry.deploy_first(made["new"], "ann", "the first")
    return made


@pytest.fixture
def client(storage: Storage, versions: dict[str, str], tmp_path: Path) -> Iterator[TestClient]:
    with client_of(make_app(tmp_path / "new", storage)) as made:
        yield made


def test_an_evaluation_is_the_bundles_own_with_curves_or_none(client: TestClient, versions: dict[str, str]) -> None:
    assert client.get(f"/models/{versions['new']}/evaluation").json() == MEASURED | {"curves": CURVES}
    assert client.get(f"/models/{versions['old']}/evaluation").json() == MEASURED | {"curves": None}


def test_an_evaluation_names_no_file(client: TestClient, storage: Storage, tmp_path: Path) -> None:
    counts = {"name": "scans", "images": {"train": {"glioma": 3}}, "groups": 2, "patients": 2, "copies": 0}
    named = {
        "refused": [{"path": "smith/1.png", "reason": "smith/1.png is damaged"}],
        "conflicts": [{"path": f"smith/{number}.png", "label": "glioma"} for number in (2, 3)],
        "root": "scans/smith",
    }
    leakage = {"test_images": 10, "leaked": 4, "per_class": {"glioma": {"test": 5, "leaked": 4}}}
    measured = MEASURED | {"leakage": leakage, "data": counts | named, "weights": {"name": "smith"}, "new": "smith"}
    version = Registry(storage).register(bundle_with(tmp_path / "named", measured))
    answer = client.get(f"/models/{version}/evaluation")
    told = counts | {"refused": 1, "conflicts": 2}
    assert answer.json() == MEASURED | {"leakage": leakage, "curves": None, "data": told}
    assert "smith" not in answer.text


def test_a_version_says_when_its_bundle_was_made(client: TestClient, storage: Storage, tmp_path: Path) -> None:
    made = "2025-11-23T19:00:00+00:00"
    version = Registry(storage).register(bundle_with(tmp_path / "aged", None, created=made))
    found = client.get(f"/models/{version}").json()
    assert found["created"] == made < found["created_at"]


def test_what_is_not_there_is_said_to_be_missing(client: TestClient, versions: dict[str, str]) -> None:
    for version, code in ((versions["bare"], "artefact_missing"), ("0" * 12, "model_unknown")):
        answer = client.get(f"/models/{version}/evaluation")
        assert (answer.status_code, answer.json()["code"]) == (404, code)
    assert "came without report/metrics.json" in client.get(f"/models/{versions['bare']}/evaluation").json()["detail"]
    for path in ("..%2F..", "Passwd"):
        for kind in ("evaluation", "report", "card", "bundle"):
            assert client.get(f"/models/{path}/{kind}").status_code in (404, 422)


def test_a_report_runs_nothing_and_a_card_is_markdown(client: TestClient, versions: dict[str, str]) -> None:
    report = client.get(f"/models/{versions['new']}/report")
    assert (report.status_code, report.text) == (200, "<html></html>")
    assert report.headers["content-type"] == "text/html; charset=utf-8"
    assert report.headers["content-security-policy"] == ("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    card = client.get(f"/models/{versions['new']}/card")
    assert (card.status_code, card.text) == (200, "# made\n")
    assert card.headers["content-type"] == "text/markdown; charset=utf-8"


def test_a_bundle_comes_as_one_archive_that_is_a_bundle_again(
    client: TestClient, versions: dict[str, str], tmp_path: Path
) -> None:
    version = versions["old"]
    answer = client.get(f"/models/{version}/bundle")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    assert answer.headers["content-disposition"] == f'attachment; filename="made-{version}.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {stat.filemode(entry.external_attr >> 16) for entry in archive.infolist()} == {"?rw-r--r--"}
        archive.extractall(tmp_path / "unpacked")
    assert Bundle.open(tmp_path / "unpacked" / f"made-{version}").version == version
    assert client.get(f"/models/{version}/bundle").content == answer.content


def test_a_name_says_nothing_to_headers_or_folders(client: TestClient, storage: Storage, tmp_path: Path) -> None:
    for name, safe in (('../ä "b"\r\nX: y', "b-X-y"), ("脳", "model"), ("a" * 200, "a" * 80)):
        version = Registry(storage).register(bundle_with(tmp_path / safe[:9], None, name=name))
        answer = client.get(f"/models/{version}/bundle")
        assert answer.headers["content-disposition"] == f'attachment; filename="{safe}-{version}.zip"'
        names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
        assert {entry.split("/")[0] for entry in names} == {f"{safe}-{version}"}


def test_this_machines_copy_is_made_and_mended(client: TestClient, storage: Storage, versions: dict[str, str]) -> None:
    version = versions["new"]
    cached = Registry(storage).cached(version)
    assert not cached.exists()
    assert client.get(f"/models/{version}/card").text == "# made\n"
    (cached / "MODEL_CARD.md").write_text("# forged\n")
    assert client.get(f"/models/{version}/card").text == "# made\n"
    shutil.rmtree(cached)
    shutil.rmtree(Path(storage.files) / "bundles" / version)
    answer = client.get(f"/models/{version}/card")
    assert (answer.status_code, answer.json()["code"]) == (503, "store_foreign")


def test_a_bundle_is_verified_once_and_again_when_it_changed(
    client: TestClient, storage: Storage, versions: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version, verified = versions["old"], list[Path]()

    class Counted(Bundle):
        @classmethod
        def open(cls, path: Path | str) -> "Counted":
            verified.append(Path(path))
            return super().open(path)

    monkeypatch.setattr(bundle_cache, "Bundle", Counted)
    for kind in ("card", "report", "evaluation", "bundle") * 2:
        assert client.get(f"/models/{version}/{kind}").status_code == 200
    cached = Registry(storage).cached(version)
    assert verified == [cached]
    assert client.get(f"/models/{versions['bare']}/evaluation").status_code == 404
    assert client.get(f"/models/{versions['bare']}/evaluation").status_code == 404
    assert len(verified) == 2
    (cached / "model.onnx").write_bytes(b"something else")
    assert client.get(f"/models/{version}/card").text == "# made\n"
    assert verified[2:] == [cached] * 2  # the altered copy, and the new one
    assert client.get(f"/models/{version}/card").text == "# made\n"
    assert len(verified) == 4


def test_going_back_is_tied_to_what_was_seen(client: TestClient, storage: Storage, versions: dict[str, str]) -> None:
    registry = Registry(storage)
    seen = registry.promote(versions["old"], "ann", "better").id
    registry.promote(versions["bare"], "bob", "better still")
    late = client.post("/rollback", json={"reason": "worse", "expected": seen})
    assert (late.status_code, late.json()["code"]) == (409, "champion_changed")
    assert f"deployment {seen + 1} ({versions['bare']}) followed deployment {seen}." in late.json()["detail"]
    assert [row.action for row in registry.history()] == ["first", "promote", "promote"]
    assert told(client) == versions["old"]
    gone = client.post("/rollback", json={"reason": "worse", "expected": seen + 1})
    assert (gone.status_code, gone.json()["version"], gone.json()["action"]) == (200, versions["old"], "rollback")
    assert told(client) == versions["new"]
    unseen = client.post("/rollback", json={"reason": "and further"})
    assert (unseen.status_code, unseen.json()["version"]) == (200, versions["new"])
    assert told(client) is None
    assert client.post("/rollback", json={"reason": "no"}).json()["code"] == "nothing_before"


def told(client: TestClient) -> str | None:
    """Which version the ledger says that a rollback would bring back; its last row alone says so."""
    *earlier, last = client.get("/deployments").json()
    assert not any("rollback_to" in row for row in earlier)
    version: str | None = last["rollback_to"]
    return version


def test_an_archive_is_never_whole_in_memory(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000
    (tmp_path / "large").write_bytes(content)
    (tmp_path / "empty").write_bytes(b"")
    chunks = list(zip_files(tmp_path, ["large", "empty"], "top"))
    assert max(map(len, chunks)) < 1.1 * 2**20
    with zipfile.ZipFile(io.BytesIO(b"".join(chunks))) as archive:
        assert archive.namelist() == ["top/large", "top/empty"]
        assert (archive.read("top/large"), archive.read("top/empty")) == (content, b"")


def test_a_download_that_is_given_up_leaves_no_file_open(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(3 * 2**20))
    sending = zip_files(tmp_path, ["large"], "top")
    assert isinstance(sending, Generator)
    next(sending)
    before = len(list(Path("/proc/self/fd").iterdir()))
    sending.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1


def test_without_a_storage_there_is_nothing(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "alone", MEASURED)
    with client_of(make_app(bundle, None)) as client:
        for path in ("/models", "/models/000000000000/evaluation", "/dataset/stats", "/dataset/montage?label=glioma"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "no_storage")
