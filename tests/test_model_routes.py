"""What travels with a model version, over HTTP: its evaluation, report and card, and the bundle as a whole."""

import io
import json
import shutil
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loop_images import new_storage
from starlette.testclient import TestClient
from test_access import client_of, make_app
from test_bundle import FACTS, write_files

from lesion.loop.registry import Registry
from lesion.loop.storage import Storage
from lesion.model.bundle import Bundle, seal
from serve.packing import packed

MEASURED = {"split": "test", "metrics": {"test/acc": 0.9}, "confusion_matrix": [[3]], "definitions": {}, "notes": ["n"]}
CURVES = {"roc": {"glioma": {"x": [0, 1], "y": [0, 1]}}, "pr": {}, "reliability": {"before": [], "after": []}}


def bundle_with(folder: Path, measured: dict[str, Any] | None, **facts: object) -> Path:
    """A bundle that opens but runs nowhere, with what its evaluation measured."""
    write_files(folder)
    if measured is not None:
        (folder / "report" / "metrics.json").write_text(json.dumps(measured))
    return seal(folder, FACTS | facts).path


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
    (cached / "MODEL_CARD.md").write_text("# fake\n")
    assert client.get(f"/models/{version}/card").text == "# made\n"
    shutil.rmtree(cached)
    shutil.rmtree(Path(storage.files) / "bundles" / version)
    answer = client.get(f"/models/{version}/card")
    assert (answer.status_code, answer.json()["code"]) == (503, "store_foreign")


def test_an_archive_is_never_whole_in_memory(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000
    (tmp_path / "large").write_bytes(content)
    (tmp_path / "empty").write_bytes(b"")
    chunks = list(packed(tmp_path, ["large", "empty"], "top"))
    assert max(map(len, chunks)) < 1.1 * 2**20
    with zipfile.ZipFile(io.BytesIO(b"".join(chunks))) as archive:
        assert archive.namelist() == ["top/large", "top/empty"]
        assert (archive.read("top/large"), archive.read("top/empty")) == (content, b"")


def test_a_download_that_is_given_up_leaves_no_file_open(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(3 * 2**20))
    sending = packed(tmp_path, ["large"], "top")
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
