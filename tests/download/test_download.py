"""Downloads from real servers on this machine: resumed, checked, unpacked and laid out, or refused in clear words."""

import csv
import hashlib
import http.server
import io
import json
import socket
import struct
import subprocess
import sys
import threading
import urllib.parse
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lesion.core.errors import ConfigError, DataError
from lesion.download import sources
from lesion.download.archives import ArchiveRefusedError, unpack
from lesion.download.layout import place
from lesion.download.reference_datasets import download, verify
from lesion.download.transfer import fetch
from tests.support.archives import zipped
from tests.support.images.hostile import encode, gradient
from tests.support.paths import REPOSITORY

JPEG = encode(gradient(), "JPEG")


class Server(http.server.ThreadingHTTPServer):
    """Serves bytes by path, with ranges; may cut connections, change its files or answer with a state."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.headers_of: dict[str, dict[str, str]] = {}
        self.cut_after: list[int] = []  # bytes after which the next answers end
        self.states: list[int] = []  # states of the next answers
        self.ranges: list[str | None] = []  # what was asked for
        self.with_ranges = True
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        data = self.server.files.get(path)
        state = self.server.states.pop(0) if self.server.states and body else None
        if data is None or state:
            self.send_response(state or 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        tag, wanted, start = f'"{hashlib.md5(data).hexdigest()}"', self.headers["Range"], 0
        if body:
            self.server.ranges.append(wanted)
        if wanted and self.server.with_ranges and self.headers["If-Range"] in (None, tag):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
        if start >= len(data) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        headers = {"ETag": tag, "Content-Length": str(len(data) - start)} | self.server.headers_of.get(path, {})
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            end = start + self.server.cut_after.pop(0) if self.server.cut_after else len(data)
            self.wfile.write(data[start:end])
            self.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "no-kaggle"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # the servers here are on this machine


def tumour_files() -> dict[str, bytes]:
    folders = ("1-notumor", "glioma_tumor", "3-meningioma", "pituitary")
    return {f"set/{split}/{folder}/{n}.jpg": JPEG + bytes([n]) for split in ("Training", "Testing")
            for folder in folders for n in (1, 2)}  # fmt: skip


def code_of(refusal: pytest.ExceptionInfo[DataError]) -> str:
    assert refusal.value.message.endswith(".")
    return refusal.value.code


# --- transfer


def test_fetch_resumes_after_cut_connections(server: Server, tmp_path: Path):
    data = bytes(range(256)) * 4000
    server.files["/a.zip"], server.cut_after = data, [300_000, 0, 500_000]
    checksum = hashlib.sha256(data).hexdigest()
    assert fetch(server.url + "/a.zip", tmp_path / "a.zip", sha256=checksum, pause_s=0) == checksum
    assert (tmp_path / "a.zip").read_bytes() == data
    assert server.ranges == [None, "bytes=300000-", "bytes=300000-", "bytes=800000-"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip"]


def test_fetch_goes_on_after_it_was_killed(server: Server, tmp_path: Path):
    data = bytes(range(256)) * 4000
    server.files["/a.zip"], server.cut_after = data, [300_000]
    with pytest.raises(DataError) as refusal:
        fetch(server.url + "/a.zip", tmp_path / "a.zip", attempts=1)
    assert code_of(refusal) == "download_network"
    assert "300,000 bytes" in refusal.value.message
    assert not (tmp_path / "a.zip").exists()
    seen: list[tuple[int, int | None]] = []
    fetch(server.url + "/a.zip", tmp_path / "a.zip", report=lambda done, total: seen.append((done, total)))
    assert server.ranges == [None, "bytes=300000-"]
    assert seen[-1] == (len(data), len(data))
    assert (tmp_path / "a.zip").read_bytes() == data


def test_fetch_begins_again_when_the_file_has_changed(server: Server, tmp_path: Path):
    server.files["/a.zip"], server.cut_after = b"old" * 1000, [1000]
    with pytest.raises(DataError):
        fetch(server.url + "/a.zip", tmp_path / "a.zip", attempts=1)
    server.files["/a.zip"] = b"new" * 500
    fetch(server.url + "/a.zip", tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == b"new" * 500


def test_fetch_without_ranges_begins_again(server: Server, tmp_path: Path):
    server.files["/a.zip"], server.cut_after, server.with_ranges = b"data" * 1000, [1000], False
    fetch(server.url + "/a.zip", tmp_path / "a.zip", pause_s=0)
    assert (tmp_path / "a.zip").read_bytes() == b"data" * 1000


def test_fetch_killed_after_the_last_byte(server: Server, tmp_path: Path):
    server.files["/a.zip"] = data = b"data" * 1000
    (tmp_path / "a.zip.part").write_bytes(data)
    facts = {"url": server.url + "/a.zip", "validator": f'"{hashlib.md5(data).hexdigest()}"'}
    (tmp_path / "a.zip.part.json").write_text(json.dumps(facts))
    fetch(server.url + "/a.zip", tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == data
    assert server.ranges == ["bytes=4000-"]


def test_fetch_waits_for_a_busy_server(server: Server, tmp_path: Path):
    server.files["/a.zip"], server.states = b"data", [503, 429]
    fetch(server.url + "/a.zip", tmp_path / "a.zip", pause_s=0)
    assert (tmp_path / "a.zip").read_bytes() == b"data"


def test_fetch_refuses_a_wrong_checksum(server: Server, tmp_path: Path):
    server.files["/a.zip"] = b"data"
    with pytest.raises(DataError) as refusal:
        fetch(server.url + "/a.zip", tmp_path / "a.zip", sha256="0" * 64)
    assert code_of(refusal) == "download_checksum"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("state", "word"), [(401, "credentials"), (403, "allow"), (404, "address"), (418, "later")])
def test_fetch_says_what_the_server_refused(server: Server, tmp_path: Path, state: int, word: str):
    server.files["/a.zip"], server.states = b"data", [state]
    with pytest.raises(DataError, match=word) as refusal:
        fetch(server.url + "/a.zip", tmp_path / "a.zip")
    assert code_of(refusal) == "download_refused"


def test_fetch_without_network(closed_port: str, tmp_path: Path):
    with pytest.raises(DataError, match="HTTPS_PROXY") as refusal:
        fetch(closed_port + "/a.zip", tmp_path / "a.zip", attempts=2, pause_s=0)
    assert code_of(refusal) == "download_network"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/a.zip", "a.zip"])
def test_fetch_takes_http_alone(url: str, tmp_path: Path):
    with pytest.raises(DataError, match="http or https"):
        fetch(url, tmp_path / "a.zip")


def test_what_does_not_fit_is_refused_first(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lesion.download.archives.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    server.files["/a.zip"] = bytes(1001)
    with pytest.raises(DataError, match="free") as refusal:
        fetch(server.url + "/a.zip", tmp_path / "a.zip")
    assert code_of(refusal) == "disk_full"


# --- archives


def saved(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "a.zip"
    path.write_bytes(data)
    return path


def test_unpack(tmp_path: Path):
    files = {
        "a/one.jpg": JPEG,
        "a/two.JPG": JPEG,
        "train.csv": b"x",
        "run.exe": b"x",
        "inner.zip": zipped({"b.jpg": JPEG}),
    }
    assert unpack(saved(tmp_path, zipped(files)), tmp_path / "to") == 3
    assert sorted(p.relative_to(tmp_path / "to").as_posix() for p in (tmp_path / "to").rglob("*") if p.is_file()) == [
        "a/one.jpg",
        "a/two.JPG",
        "train.csv",
    ]
    assert (tmp_path / "to/a/one.jpg").read_bytes() == JPEG


@pytest.mark.parametrize(
    "name",
    ["../evil.jpg", "/etc/evil.jpg", "a/../../evil.jpg", "..\\evil.jpg", "C:\\evil.jpg", "C:/evil.jpg", "a/..", "."],
)
def test_unpack_refuses_paths_that_lead_out(tmp_path: Path, name: str):
    entry = zipfile.ZipInfo("x")
    entry.filename = name  # as written, without what the constructor does to it
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr("good.jpg", JPEG)
        target.writestr(entry, JPEG)
    with pytest.raises(DataError, match="leads out") as refusal:
        unpack(saved(tmp_path, buffer.getvalue()), tmp_path / "deep/to")
    assert code_of(refusal) == "archive_refused"
    assert [path.name for path in tmp_path.rglob("*")] == ["a.zip"], "nothing was written"


def test_unpack_refuses_links(tmp_path: Path):
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="link or a device"):
        unpack(saved(tmp_path, buffer.getvalue()), tmp_path / "to")


def test_unpack_refuses_bombs(tmp_path: Path):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("a.jpg", bytes(5 * 2**20))
    path = saved(tmp_path, bomb.getvalue())
    with pytest.raises(DataError, match="more than the 1,048,576 allowed"):
        unpack(path, tmp_path / "to", max_bytes=2**20)
    lying = bomb.getvalue().replace(struct.pack("<I", 5 * 2**20), struct.pack("<I", 100))
    with pytest.raises(DataError) as refusal:
        unpack(saved(tmp_path, lying), tmp_path / "to", max_bytes=2**20)
    assert code_of(refusal) == "archive_refused"
    assert sum(file.stat().st_size for file in (tmp_path / "to").rglob("*")) <= 2**20
    with pytest.raises(DataError, match="3 entries"):
        unpack(saved(tmp_path, zipped({f"{n}.jpg": b"" for n in range(3)})), tmp_path / "to", max_entries=2)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_unpack_refuses_doubles_encryption_and_damage(tmp_path: Path):
    with pytest.raises(DataError, match="twice"):
        unpack(saved(tmp_path, zipped({"a.jpg": b"1", "A.JPG": b"2"})), tmp_path / "to")
    plain = zipped({"a.jpg": JPEG}, zipfile.ZIP_STORED)
    position = plain.index(b"PK\1\2") + 8
    with pytest.raises(DataError, match="encrypted"):
        unpack(saved(tmp_path, plain[:position] + b"\1" + plain[position + 1 :]), tmp_path / "to")
    for damaged in (plain[:-30], b"no archive", plain.replace(JPEG[100:110], bytes(10))):
        with pytest.raises(ArchiveRefusedError, match="damaged") as refusal:
            unpack(saved(tmp_path, damaged), tmp_path / "to")
        assert code_of(refusal) == "archive_refused"


# --- whole data sets


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_brain_tumor_mri_from_an_archive(server: Server, tmp_path: Path):
    data = zipped(tumour_files())
    server.files["/mri.zip"], to = data, tmp_path / "mri"
    counts = download(
        "brain_tumor_mri", to, url=server.url + "/mri.zip", sha256=hashlib.sha256(data).hexdigest().upper()
    )
    assert counts == {"glioma": 4, "meningioma": 4, "notumor": 4, "pituitary": 4}
    expected = [f"{s}/{c}/{n}.jpg" for s in ("Testing", "Training")
                for c in ("glioma", "meningioma", "notumor", "pituitary") for n in (1, 2)]  # fmt: skip
    assert tree(to) == [".download.json", *expected]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mri"], "nothing is left beside it"
    record = json.loads((to / ".download.json").read_text())
    assert record["files"]["Training/glioma/1.jpg"] == hashlib.sha256(JPEG + b"\1").hexdigest()
    assert record["revision"] == hashlib.sha256(data).hexdigest()
    server.files.clear()
    assert download("brain_tumor_mri", to, url=server.url + "/mri.zip") == counts, "the second run verifies"


def test_a_second_run_finds_altered_and_missing_files(server: Server, tmp_path: Path):
    server.files["/mri.zip"], to = zipped(tumour_files()), tmp_path / "mri"
    download("brain_tumor_mri", to, url=server.url + "/mri.zip")
    altered = to / "Training/glioma/1.jpg"
    altered.unlink()
    altered.write_bytes(JPEG)
    (to / "Testing/notumor/2.jpg").unlink()
    with pytest.raises(DataError, match=r"2 of 16 .*Testing/notumor/2.jpg, Training/glioma/1.jpg") as refusal:
        verify(to)
    assert code_of(refusal) == "download_damaged"


def test_a_killed_download_goes_on_and_never_leaves_half_a_folder(server: Server, tmp_path: Path):
    data = zipped(tumour_files())
    server.files["/mri.zip"], server.cut_after, to = data, [5000, 0, 0, 0, 0, 0], tmp_path / "mri"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lesion.download.transfer.time.sleep", lambda _: None)
        with pytest.raises(DataError, match="continues after the 5,000 bytes"):
            download("brain_tumor_mri", to, url=server.url + "/mri.zip")
    assert not to.exists()
    server.cut_after = []
    (tmp_path / "mri.part/ready/Training/glioma").mkdir(parents=True)  # as if killed while laying out
    (tmp_path / "mri.part/ready/Training/glioma/half.jpg").write_bytes(b"half")
    download("brain_tumor_mri", to, url=server.url + "/mri.zip")
    assert server.ranges[-1] == "bytes=5000-"
    assert "Training/glioma/half.jpg" not in tree(to)


def test_an_incomplete_data_set_is_refused(server: Server, tmp_path: Path):
    files = {name: data for name, data in tumour_files().items() if "Testing/1-notumor" not in name}
    server.files["/mri.zip"] = zipped(files)
    with pytest.raises(DataError, match="Testing/notumor") as refusal:
        download("brain_tumor_mri", tmp_path / "mri", url=server.url + "/mri.zip")
    assert code_of(refusal) == "download_layout"
    assert not (tmp_path / "mri").exists()


def labels(folder: Path) -> dict[str, str]:
    with (folder / "train.csv").open(newline="") as file:
        return {row["image_id"]: row["label"] for row in csv.DictReader(file)}


def test_cassava_as_kaggle_has_it(server: Server, tmp_path: Path):
    files = {f"c/train_images/{n}.jpg": JPEG for n in range(5)} | {"c/test_images/9.jpg": JPEG}
    files["c/train.csv"] = b"image_id,label\n" + b"".join(b"%d.jpg,%d\n" % (n, n) for n in range(5))
    server.files["/c.zip"], to = zipped(files), tmp_path / "cassava"
    assert download("cassava", to, url=server.url + "/c.zip") == {str(n): 1 for n in range(5)}
    assert labels(to) == {f"{n}.jpg": str(n) for n in range(5)}
    assert json.loads((to / "label_num_to_disease_map.json").read_text())["3"] == "Cassava Mosaic Disease (CMD)"
    assert [name for name in tree(to) if name.endswith(".jpg")] == [f"train_images/{n}.jpg" for n in range(5)]


def test_cassava_of_class_folders(server: Server, tmp_path: Path):
    names = ("cbb", "cbsd", "cgm", "cmd", "healthy")
    files = {f"leafdata/{split}/{name}/1.jpg": JPEG for split in ("train", "test") for name in names}
    server.files["/c.zip"], to = zipped(files), tmp_path / "cassava"
    assert download("cassava", to, url=server.url + "/c.zip") == {str(n): 2 for n in range(5)}
    assert len(labels(to)) == 10, "equal names are kept apart"


def test_cassava_with_a_table_that_leads_out(server: Server, tmp_path: Path):
    files = {"train_images/0.jpg": JPEG, "secret.jpg": JPEG, "train.csv": b"image_id,label\n../secret.jpg,0\n"}
    server.files["/c.zip"] = zipped(files)
    with pytest.raises(DataError, match="secret"):
        download("cassava", tmp_path / "cassava", url=server.url + "/c.zip")


def test_a_refused_archive_is_fetched_again(server: Server, tmp_path: Path):
    server.files["/mri.zip"] = b"<html>Please log in to this network</html>"
    with pytest.raises(DataError, match="not a ZIP archive") as refusal:
        download("brain_tumor_mri", tmp_path / "mri", url=server.url + "/mri.zip")
    assert code_of(refusal) == "archive_refused"
    server.files["/mri.zip"] = zipped(tumour_files())
    assert sum(download("brain_tumor_mri", tmp_path / "mri", url=server.url + "/mri.zip").values()) == 16


def test_a_file_in_the_way_is_left_alone(tmp_path: Path):
    (tmp_path / "mri").write_text("mine")
    with pytest.raises(DataError, match="another folder"):
        download("brain_tumor_mri", tmp_path / "mri")


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.jpg").write_bytes(JPEG)
    with pytest.raises(DataError, match="another folder") as refusal:
        download("brain_tumor_mri", tmp_path)
    assert code_of(refusal) == "download_exists"


def test_settings_that_contradict_each_other(tmp_path: Path):
    contradictions: list[dict[str, Any]] = [
        {"mirror": "a/b", "url": "http://host/a.zip"},
        {"mirror": "a/b", "source": "kaggle"},
        {"url": "http://host/a.zip", "source": "hub"},
        {"source": "url"},
    ]
    for settings in contradictions:
        with pytest.raises(ConfigError):
            download("brain_tumor_mri", tmp_path / "mri", **settings)
    with pytest.raises(ConfigError, match="brain_tumor_mri, cassava"):
        download("imagenet", tmp_path / "x")


def test_place_copies_where_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("lesion.download.layout.os.link", fail)
    (tmp_path / "a.jpg").write_bytes(JPEG)
    assert place(tmp_path / "a.jpg", tmp_path / "to").read_bytes() == JPEG


# --- the Hugging Face hub and Kaggle


def hub_of(server: Server, repository: str, files: dict[str, bytes], *, lfs: bool = True) -> None:
    """Make the server answer as the hub does for one data set."""
    commit, api = "a" * 40, f"/api/datasets/{repository}"
    facts = {"id": repository, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
    tree_of = []
    for name, data in files.items():
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry = {"type": "file", "path": name, "size": len(data), "oid": blob}
        if lfs:
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        tree_of.append(entry)
        path = f"/datasets/{repository}/resolve/{commit}/{name}"
        server.files[path] = data
        server.headers_of[path] = {"X-Repo-Commit": commit}
    for path, answer in {f"{api}/revision/main": facts, f"{api}/tree/{commit}": tree_of}.items():
        server.files[path] = json.dumps(answer).encode()
        server.headers_of[path] = {"Content-Type": "application/json"}


@pytest.mark.parametrize("lfs", [True, False])
def test_brain_tumor_mri_from_the_hub(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lfs: bool):
    files = {name.removeprefix("set/"): data for name, data in tumour_files().items()} | {"README.md": b"# Card"}
    hub_of(server, "Simezu/brain-tumour-MRI-scan", files, lfs=lfs)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    counts = download("brain_tumor_mri", tmp_path / "mri")
    assert counts == {"glioma": 4, "meningioma": 4, "notumor": 4, "pituitary": 4}
    record = json.loads((tmp_path / "mri/.download.json").read_text())
    assert (record["source"], record["address"]) == ("hub", "Simezu/brain-tumour-MRI-scan")
    assert record["revision"] == "a" * 40


def test_a_file_of_the_hub_with_the_wrong_checksum(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = {name.removeprefix("set/"): data for name, data in tumour_files().items()}
    hub_of(server, "some/mirror", files)
    name = next(name for name in server.files if name.endswith("Training/pituitary/2.jpg"))
    server.files[name] = server.files[name][:-1] + b"!"
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    with pytest.raises(DataError) as refusal:
        download("brain_tumor_mri", tmp_path / "mri", mirror="some/mirror")
    assert code_of(refusal) == "download_checksum"
    assert not (tmp_path / "mri").exists()


def test_a_hub_that_lists_files_outside_touches_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "precious.jpg").write_text("mine")
    hub_of(server, "some/mirror", {"../precious.jpg": JPEG})
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    with pytest.raises(DataError, match=r"precious\.jpg.*choose another mirror") as refusal:
        sources.from_hub("some/mirror", tmp_path / "folder")
    assert code_of(refusal) == "download_refused"
    assert (tmp_path / "precious.jpg").read_text() == "mine"


def test_a_name_that_is_no_repository_is_refused(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    with pytest.raises(DataError, match="choose another mirror") as refusal:
        sources.from_hub("owner/name/more", tmp_path / "folder")
    assert code_of(refusal) == "download_refused"


def test_files_of_the_hub_are_taken_in_upper_case_too(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hub_of(server, "some/mirror", {"a/1.JPG": JPEG, "a/2.jfif": JPEG, "a/3.dcm": JPEG, "a/run.exe": b"x"})
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    origin = sources.from_hub("some/mirror", tmp_path / "folder")
    assert (origin.source, origin.address, origin.revision) == ("hub", "some/mirror", "a" * 40)
    names = sorted(path.name for path in (tmp_path / "folder/a").iterdir())
    assert names == ["1.JPG", "2.jfif", "3.dcm"]


def test_a_cut_hub_download_goes_on(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = {name.removeprefix("set/"): data for name, data in tumour_files().items()}
    hub_of(server, "some/mirror", files)
    lost = next(name for name in server.files if name.endswith("Testing/pituitary/2.jpg"))
    data = server.files.pop(lost)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    with pytest.raises(DataError):
        download("brain_tumor_mri", tmp_path / "mri", mirror="some/mirror")
    assert not (tmp_path / "mri").exists()
    came = sum(path.suffix == ".jpg" for path in (tmp_path / "mri.part").rglob("*"))
    assert came > 0
    server.files[lost], server.ranges = data, []
    assert sum(download("brain_tumor_mri", tmp_path / "mri", mirror="some/mirror").values()) == 16
    assert len(server.ranges) <= 16 - came + 3, "what had come was not fetched again"


def test_half_a_mirror_is_not_taken_for_the_whole(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    half = tmp_path / "mri.part/hub-some--mirror/Training/glioma"
    half.mkdir(parents=True)
    (half / "1.jpg").write_bytes(JPEG)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.states = [503] * 99
    with pytest.raises(DataError) as refusal:
        sources.from_hub("some/mirror", tmp_path / "mri.part/hub-some--mirror")
    assert code_of(refusal) in {"download_network", "download_refused"}


def test_cassava_from_parquet_on_the_hub(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    images = [{"bytes": JPEG + bytes([n]), "path": f"{n}.jpg"} for n in range(12)]
    table = pa.table({"image": images, "label": [*range(5), *range(5), -1, None]})
    names = ["cassava bacterial blight (cbb)", "cbsd", "cgm", "cmd", "healthy"]
    features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), buffer)
    hub_of(server, "some/mirror", {"data/train-00000-of-00001.parquet": buffer.getvalue()})
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    assert download("cassava", tmp_path / "c", mirror="some/mirror") == {str(n): 2 for n in range(5)}
    broken = {"data/train-00000-of-00001.parquet": buffer.getvalue()[:-100]}
    hub_of(server, "other/mirror", broken)
    with pytest.raises(DataError) as refusal:
        download("cassava", tmp_path / "d", mirror="other/mirror")
    assert code_of(refusal) == "download_layout"


def test_the_hub_without_network(closed_port: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", closed_port)
    with pytest.raises(DataError, match="Check the network") as refusal:
        download("brain_tumor_mri", tmp_path / "mri")
    assert code_of(refusal) == "download_network"
    assert not (tmp_path / "mri").exists()


def test_the_hub_without_the_repository(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.headers_of["/api/datasets/no/where/revision/main"] = {}
    with pytest.raises(DataError) as refusal:
        download("cassava", tmp_path / "c", mirror="no/where")
    assert code_of(refusal) in {"download_refused", "download_network"}
    assert "no/where" in refusal.value.message


def test_kaggle_without_credentials(tmp_path: Path):
    with pytest.raises(DataError, match=r"KAGGLE_USERNAME.*kaggle\.json.*accept the rules") as refusal:
        download("cassava", tmp_path / "c", source="kaggle")
    assert code_of(refusal) == "download_credentials"


def test_kaggle_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kagglehub = pytest.importorskip("kagglehub")
    import requests

    def refuse(handle: str) -> str:
        assert handle == "cassava-leaf-disease-classification"
        answer = requests.Response()
        answer.status_code = 403
        raise requests.HTTPError("Forbidden", response=answer)

    monkeypatch.setattr(kagglehub, "competition_download", refuse)
    monkeypatch.setenv("KAGGLE_USERNAME", "jane")
    monkeypatch.setenv("KAGGLE_KEY", "key")
    with pytest.raises(DataError, match="accept the rules") as refusal:
        download("cassava", tmp_path / "c")
    assert code_of(refusal) == "download_credentials"


def test_kaggle_with_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kagglehub = pytest.importorskip("kagglehub")
    cache = tmp_path / "cache/versions/1"
    unpack(saved(tmp_path, zipped(tumour_files())), cache)
    monkeypatch.setattr(kagglehub, "dataset_download", lambda handle: str(cache) if "masoud" in handle else "")
    monkeypatch.setenv("KAGGLE_USERNAME", "jane")
    monkeypatch.setenv("KAGGLE_KEY", "key")
    assert sum(download("brain_tumor_mri", tmp_path / "mri").values()) == 16
    assert len(tree(cache)) == 16, "the cache stays whole"


def test_a_damaged_kaggle_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "kaggle.json").write_text("{")
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    with pytest.raises(DataError, match="KAGGLE_USERNAME") as refusal:
        download("cassava", tmp_path / "c")
    assert code_of(refusal) == "download_credentials"


def test_the_command(server: Server, tmp_path: Path):
    server.files["/mri.zip"] = zipped(tumour_files())
    command = [sys.executable, "scripts/download.py", "brain_tumor_mri", "--to", str(tmp_path / "mri")]
    command += ["--url", server.url + "/mri.zip"]
    for words in ("16 images", "complete and unaltered"):
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert words in " ".join(done.stderr.split())
    server.files["/mri.zip"] = b""
    command[4] = str(tmp_path / "other")
    done = subprocess.run(
        [*command, "--sha256", "0" * 64], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("brain_tumor_mri: The file from ")
