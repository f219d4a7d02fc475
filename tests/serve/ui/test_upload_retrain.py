"""The Upload & Retrain screen without a browser, against a real server."""

from typing import Any

import pytest
from streamlit.proto.Common_pb2 import FileURLs
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec

from lesion.client import Client
from lesion.database.storage import Storage
from lesion.retraining.jobs import JobError, JobState, cancel, jobs
from lesion.retraining.leases import WorkerHeartbeats, WorkerIdentity, claim, finish, record_progress
from serve.ui.screens.upload import BY_FOLDER, Batch, UploadProgress, chunks, send
from serve.ui.text.sentences import accepted_images
from tests.support.archives import zipped
from tests.support.servers.page import OpenScreen, buttons, drop_files, page_text, photo, press, select
from tests.support.servers.serving import ServerProcess

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process

# Upload


class DroppedFile(UploadedFile):
    """A file as Streamlit holds it, that claims to have some size."""

    def __init__(self, file_id: str, size: int, start: bytes = b"\x89PNG") -> None:
        super().__init__(UploadedFileRec(file_id, file_id, "", start), FileURLs())
        self.size = size


def test_files_are_sent_in_chunks_that_a_request_may_carry() -> None:
    many = [DroppedFile(str(number), 1000) for number in range(120)]
    assert [len(chunk) for chunk in chunks(many, 2**26)] == [50, 50, 20]
    large = [DroppedFile(str(number), 6 * 2**20) for number in range(5)]
    assert [len(chunk) for chunk in chunks(large, 2**26)] == [2, 2, 1]
    assert [len(chunk) for chunk in chunks(large, 7 * 2**20)] == [1] * 5
    mixed = [many[0], DroppedFile("a.zip", 10, b"PK\x03\x04"), many[1], many[2]]
    assert [[file.file_id for file in chunk] for chunk in chunks(mixed, 2**26)] == [["0"], ["a.zip"], ["1", "2"]]
    assert list(chunks([], 2**26)) == []


class Taking(Client):
    """Takes whatever is uploaded, and keeps the names."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1")
        self.names: list[str] = []

    def upload(
        self, files: Any, label: str | None = None, group: str | None = None, *, dry_run: bool = False
    ) -> dict[str, Any]:
        assert not dry_run
        self.names += [name for name, _ in files]
        return {"accepted": [{"name": name, "reason": ""} for name, _ in files], "quarantined": [], "rejected": []}


def test_two_thousand_files_go_in_forty_requests() -> None:
    files, upload, client = [DroppedFile(str(number), 10) for number in range(2000)], UploadProgress(), Taking()
    told: list[int] = []
    send(client, upload, Batch(files, "bright", ""), 2**26, lambda: told.append(len(upload.sent)))
    assert told == [50 * turn for turn in range(1, 41)]
    assert client.names == [file.name for file in files]
    assert (len(upload.rows), len(upload.unsent)) == (2000, 0)


def test_an_upload_that_a_click_elsewhere_breaks_off_goes_on_where_it_was() -> None:
    class ClickError(Exception):
        pass

    def click() -> None:
        raise ClickError

    files, upload, client = [DroppedFile(str(number), 10) for number in range(120)], UploadProgress(), Taking()
    batch = Batch(files, "bright", "")
    with pytest.raises(ClickError):
        send(client, upload, batch, 2**26, click)
    assert (len(upload.requested), len(upload.sent), len(upload.rows), len(upload.unsent)) == (120, 50, 50, 70)
    send(client, upload, batch, 2**26, lambda: None)
    assert (len(upload.rows), len(upload.unsent)) == (120, 0)
    assert client.names == [file.name for file in files]
    again = Batch(files[:2], "dark", "")  # under another class these are others
    send(client, upload, again, 2**26, lambda: None)
    assert (len(upload.requested), len(upload.rows), len(upload.unsent)) == (2, 2, 0)


def test_files_are_uploaded_with_a_line_for_each(page: OpenScreen, lamp_server: ServerProcess) -> None:
    before = lamp_server.client.get("/training_data").json()["status"]["accepted"]
    opened = page("retrain")
    opened = drop_files(opened, *((f"{seed}.png", photo(seed)) for seed in range(100, 160)), ("notes.txt", b"no image"))
    assert not buttons(opened)["Upload 61 files"]
    assert "Choose the class of these images." in page_text(opened)
    press(select(opened, "Class of these images", "bright"), "Upload 61 files")
    assert "60 of 61 files accepted, 1 refused." in page_text(opened)
    table = opened.dataframe[0].value
    assert list(table.iloc[0])[:2] == ["notes.txt", "Refused"]
    assert "not recognized as an image" in table["Reason"][0]
    assert list(table["Outcome"][1:]) == ["Accepted"] * 60
    assert not opened.file_uploader[0].value
    after = lamp_server.client.get("/training_data").json()
    assert after["status"]["accepted"] == before + 60
    assert f"would learn from {after['next_retrain']['images']} new images" in page_text(opened)


def test_an_archive_tells_the_classes_by_its_folders(page: OpenScreen) -> None:
    files = {"bright/1.png": photo(200), "dark/2.png": photo(201, 0), "unknown/3.png": photo(202)}
    opened = select(drop_files(page("retrain"), ("both.zip", zipped(files))), "Class of these images", BY_FOLDER)
    press(opened, "Upload 1 file")
    assert list(opened.dataframe[0].value["Outcome"]) == ["Refused", "Accepted", "Accepted"]
    opened = select(drop_files(page("retrain"), ("1.png", photo(203))), "Class of these images", BY_FOLDER)
    assert "Only a ZIP has folders" in page_text(opened)
    assert not buttons(opened)["Upload 1 file"]


def test_an_upload_is_checked_before_anything_is_stored(page: OpenScreen, lamp_server: ServerProcess) -> None:
    before = lamp_server.client.get("/training_data").json()["status"]
    files = {"bright/1.png": photo(210), "dark/2.png": photo(211, 0), "unknown/3.png": photo(212)}
    opened = select(drop_files(page("retrain"), ("both.zip", zipped(files))), "Class of these images", BY_FOLDER)
    press(opened, "Check without storing")
    assert "Nothing was stored yet. Of 3 files, 2 would be accepted and 1 refused." in page_text(opened)
    classes, refused = (table.value for table in opened.dataframe[:2])
    assert [list(row) for _, row in classes.iterrows()] == [
        ["bright", 1, 0, 0], ["dark", 1, 0, 0], ["unknown", 0, 0, 1],
    ]  # fmt: skip
    assert list(refused["File"]) == ["unknown/3.png"]
    assert lamp_server.client.get("/training_data").json()["status"] == before
    select(opened, "Class of these images", "bright")  # other files, in a way: what was found no longer holds
    assert "Nothing was stored yet" not in page_text(opened)


def test_an_archive_that_would_be_refused_shows_the_layout(page: OpenScreen) -> None:
    dropped = ("x.zip", b"7z\xbc\xaf\x27\x1c" + bytes(99))
    opened = select(drop_files(page("retrain"), dropped), "Class of these images", "bright")
    press(opened, "Check without storing")
    assert "1 archive would be refused as a whole." in page_text(opened)
    assert "it is a 7z archive" in opened.warning[0].value
    assert "└── " in opened.code[0].value


def test_the_form_shows_the_limits_of_the_server(page: OpenScreen, lamp_server: ServerProcess) -> None:
    info = lamp_server.client.get("/info").json()
    sentence = accepted_images(info)
    assert page("retrain").file_uploader[0].label.endswith(f"Images: {sentence}.")
    assert f"{info['limits']['max_image_bytes'] // 2**20} MiB" in sentence
    assert f"at least {info['limits']['min_side']} pixels" in sentence
    assert "JPEG, PNG, WEBP" in sentence


# Retrain


def test_a_retraining_is_started_watched_and_cancelled(page: OpenScreen, lamp_storage: Storage) -> None:
    opened = page("retrain")
    assert [each.label for each in opened.number_input] == ["Epochs", "Batch size", "Learning rate"]
    assert (opened.number_input[0].min, opened.number_input[0].max, opened.number_input[0].value) == (1, 100, 5)
    opened.number_input[0].set_value(2).run()
    assert "How long it takes is not known yet." in page_text(opened)
    press(opened, "Start retraining")
    job = jobs(lamp_storage)[0]
    assert (job.state, job.request["epochs"]) == ("queued", 2)
    assert opened.get("progress")[0].proto.text == "Waiting for a free worker"
    assert not buttons(opened)["Start retraining"]
    worker = WorkerHeartbeats(lamp_storage, WorkerIdentity("w", "elsewhere", 1))
    worker.beat()
    claim(lamp_storage, job.id, "w")
    metrics = [{"epoch": 1, "train/loss": 0.7, "val/loss": 0.6, "val/acc": 0.8, "val/f1_macro": 0.79}]
    record_progress(lamp_storage, job.id, "w", stage="train", epoch=1, progress=0.4, seconds_left=31.0, metrics=metrics)
    opened.run()
    assert opened.get("progress")[0].proto.text == "Training: 1 of 2 epochs done, about 30 seconds left"
    assert len(opened.get("vega_lite_chart")) == 2
    press(opened, "Cancel the retraining")
    assert opened.get("progress")[0].proto.text == "Being canceled"
    assert jobs(lamp_storage)[0].cancel_requested
    finish(lamp_storage, job.id, "w", JobState.CANCELLED, "local cancelled it.")
    worker.leave()
    opened.run()
    assert "The retraining was canceled; the model in use stays." in page_text(opened)
    assert buttons(opened)["Start retraining"]


def test_a_retraining_of_somebody_else_is_seen_too(
    page: OpenScreen, lamp_server: ServerProcess, lamp_storage: Storage
) -> None:
    with Client(lamp_server.url) as client:
        job_id = client.retrain(epochs=3)["job_id"]
        try:
            opened = page("retrain")
            assert "A retraining is running" in page_text(opened)
            assert not buttons(opened)["Start retraining"]
        finally:
            assert client.cancel(job_id)["state"] == "cancelled"
    with pytest.raises(JobError, match="is over"):
        cancel(lamp_storage, job_id, "ann")
