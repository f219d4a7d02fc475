"""The page's process: what it takes from strangers, and how many bytes of files it keeps."""

import secrets
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest
from sqlalchemy import delete
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFileRec
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from lesion.auth import api_keys
from lesion.cli import ui
from lesion.database.storage import Storage
from lesion.database.tables import ApiKey
from serve.ui.held_files import Bounds, HeldFiles, NoRoomError
from tests.support.servers.browser import PageProcess
from tests.support.servers.serving import ServerProcess, eventually

MIB = 2**20


# The bounds


def arrive(held: HeldFiles, files: MemoryUploadedFileManager, session: str, file: str, size: int) -> None:
    with held.arriving(files, session, file, size):
        files.add_file(session, UploadedFileRec(file, f"{file}.png", "image/png", bytes(size)))


def test_a_session_and_all_together_keep_no_more_than_their_bounds() -> None:
    held, files = HeldFiles(Bounds(10, 16)), MemoryUploadedFileManager("/files")
    arrive(held, files, "ann", "a", 6)
    with pytest.raises(NoRoomError):
        arrive(held, files, "ann", "b", 5)
    arrive(held, files, "ann", "b", 4)
    arrive(held, files, "bob", "c", 6)
    with pytest.raises(NoRoomError):  # bob has room, all together have none
        arrive(held, files, "bob", "d", 1)
    files.remove_file("ann", "a")
    arrive(held, files, "bob", "d", 4)
    files.remove_session_files("bob")  # his window was closed
    arrive(held, files, "cyd", "e", 10)
    assert HeldFiles(Bounds(3 * MIB, 5 * MIB)).room.startswith(
        "All files that are dropped here may have 3 MiB together"
    )


def test_files_that_are_arriving_count_and_those_that_broke_off_do_not() -> None:
    held, files = HeldFiles(Bounds(10, 10)), MemoryUploadedFileManager("/files")
    with held.arriving(files, "ann", "a", 7), pytest.raises(NoRoomError):
        arrive(held, files, "bob", "b", 4)
    with pytest.raises(OSError, match="broke"), held.arriving(files, "ann", "c", 10):
        raise OSError("it broke off")
    arrive(held, files, "bob", "b", 10)


def test_a_file_is_freed_when_it_has_left_the_page_but_not_before_it_was_on_it() -> None:
    held, files = HeldFiles(Bounds(10, 10)), MemoryUploadedFileManager("/files")
    for name in ("a", "b"):
        arrive(held, files, "ann", name, 2)
    held.keep(files, "ann", {"a"})  # the browser has not told yet of b
    arrive(held, files, "ann", "c", 2)
    held.keep(files, "ann", {"a", "b"})
    assert len(files.get_files("ann", ["a", "b", "c"])) == 3
    held.keep(files, "ann", {"c"})
    assert [each.file_id for each in files.get_files("ann", ["a", "b", "c"])] == ["c"]
    held.keep(files, "ann", set())
    assert files.get_files("ann", ["a", "b", "c"]) == []


def test_only_the_newest_sessions_stay_admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.ui.held_files._MOST_ADMITTED", 2)
    held = HeldFiles(Bounds(1, 1))
    held.admit("a", "b")
    held.admit("a", "c")
    assert [held.admits(name) for name in ("a", "b", "c", None, "")] == [True, False, True, False, False]
    held.dismiss("c", "never")
    assert held.admits("c", "a")
    assert not held.admits("c")


@pytest.mark.parametrize("bounds", [("--max-session", "10"), ("--max-all", "100")])
def test_bounds_that_contradict_each_other_are_refused(
    bounds: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        ui.main(list(bounds))
    assert "--max-upload may not be more than --max-session" in capsys.readouterr().err


# The process


@contextmanager
def session(page: PageProcess) -> Iterator[tuple[ClientConnection, str]]:
    """Open the page as a browser does; return the connection and the session's id."""
    address = page.url.replace("http", "ws") + "/_stcore/stream"
    with connect(address, subprotocols=["streamlit"], max_size=None) as channel:  # type: ignore[list-item]
        channel.send(rerun(0))
        yield channel, wait_for(channel, "new_session").new_session.initialize.session_id


def wait_for(channel: ClientConnection, kind: str) -> ForwardMsg:
    while True:
        message = ForwardMsg()
        message.ParseFromString(bytes(channel.recv(30)))  # type: ignore[arg-type]
        if message.WhichOneof("type") == kind:
            return message


def rerun(size: int) -> bytes:
    """A browser's message that runs the script again, of a little more than ``size`` bytes."""
    message = BackMsg()
    message.rerun_script.query_string = "x" * size
    return bytes(message.SerializeToString())


def takes_messages_up_to(channel: ClientConnection, taken: int, refused: int) -> None:
    """Send a message that is taken, and a longer one that ends the connection as too large."""
    channel.send(rerun(taken))
    wait_for(channel, "script_finished")
    with suppress(ConnectionClosed):
        channel.send(rerun(refused))
        while True:
            channel.recv(30)
    assert channel.close_code == 1009


def put(page: PageProcess, session_id: str, size: int, method: str = "PUT") -> tuple[int, str]:
    token = secrets.token_hex(16)
    path = f"{page.url}/_stcore/upload_file/{session_id}/{uuid.uuid4()}"
    headers = {"Cookie": f"_streamlit_xsrf={token}", "X-Xsrftoken": token}
    answer = httpx.request(method, path, files={"file": ("x.bin", bytes(size))}, headers=headers, timeout=30)
    return answer.status_code, answer.text


@pytest.fixture
def keys(lamp_server: ServerProcess, lamp_storage: Storage) -> Iterator[str]:
    """An admin's key: the server asks for one while a test runs."""
    text = api_keys.create(lamp_storage, "ann", "admin", "ann")
    eventually(lambda: httpx.get(f"{lamp_server.url}/me").status_code == 401)
    yield text
    with lamp_storage.session() as opened:
        opened.execute(delete(ApiKey))
    eventually(lambda: httpx.get(f"{lamp_server.url}/me").status_code == 200)


@pytest.mark.slow
def test_strangers_send_neither_files_nor_long_messages(lamp_server: ServerProcess, keys: str) -> None:
    with PageProcess(lamp_server.url) as page, session(page) as (channel, session_id):
        wait_for(channel, "script_finished")
        assert put(page, session_id, 60 * MIB) == (403, "Sign in before you send files.")
        assert put(page, session_id, 1, "DELETE") == (403, "Sign in before you send files.")
        assert put(page, "another", 1)[0] == 403
        assert put(page, f"{session_id}/deeper", 1)[0] == 404
        takes_messages_up_to(channel, 60_000, 70_000)


@pytest.mark.slow
def test_users_send_files_up_to_the_bounds_and_messages(lamp_server: ServerProcess) -> None:
    bounds = ("--max-upload", "1", "--max-session", "2", "--max-all", "3")
    with PageProcess(lamp_server.url, *bounds) as page, session(page) as (channel, session_id):
        wait_for(channel, "script_finished")
        size = MIB - 1000
        assert [put(page, session_id, size)[0] for _ in range(3)] == [204, 204, 413]
        with session(page) as (other, other_id):
            wait_for(other, "script_finished")
            assert [put(page, other_id, size)[0] for _ in range(2)] == [204, 413]
        assert put(page, session_id, MIB)[0] == 413
        head = f"PUT /_stcore/upload_file/{session_id}/{uuid.uuid4()}"
        chunked = httpx.put(f"{page.url}{head.split()[1]}", content=iter([b"x"]))
        assert (chunked.status_code, chunked.text) == (411, "The length of the file is missing.")
        takes_messages_up_to(channel, 70_000, 9_000_000)
