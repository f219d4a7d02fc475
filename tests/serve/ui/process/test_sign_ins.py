"""Sign-ins that outlive a window: neither half of the key tells it, and none lives longer than it may."""

import json
import time
from pathlib import Path

import pytest

from lesion.cli import ui
from serve.ui.sign_ins import SignIns

KEY = "lesion_0123456789abcdef_" + "c7" * 32


@pytest.fixture(params=["folder", "memory"])
def sign_ins(request: pytest.FixtureRequest, tmp_path: Path) -> SignIns:
    return SignIns(tmp_path if request.param == "folder" else None, 1.0)


def test_a_cookie_stands_for_its_key_until_the_sign_out(sign_ins: SignIns) -> None:
    first, second = sign_ins.begin(KEY), sign_ins.begin(KEY)
    assert first != second
    assert sign_ins.key_of(first) == sign_ins.key_of(second) == KEY
    sign_ins.end(first)
    sign_ins.end(first)
    assert (sign_ins.key_of(first), sign_ins.key_of(second)) == (None, KEY)


@pytest.mark.parametrize("cookie", ["", ".", "a.b", "../../etc/passwd.00", "x" * 5000, "ä.ö"])
def test_a_cookie_that_nobody_was_given_stands_for_nothing(sign_ins: SignIns, cookie: str) -> None:
    given = sign_ins.begin(KEY)
    assert sign_ins.key_of(cookie) is None
    sign_ins.end(cookie)
    name = given.partition(".")[0]
    assert [sign_ins.key_of(f"{name}{rest}") for rest in ("", ".", ".00", "." + "zz" * len(KEY))] == [None] * 4
    assert sign_ins.key_of(given) == KEY


def test_a_sign_in_ends_when_its_time_is_over(sign_ins: SignIns, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie, now = sign_ins.begin(KEY), time.time()
    monkeypatch.setattr("serve.ui.sign_ins.time.time", lambda: now + 3590)
    assert sign_ins.key_of(cookie) == KEY
    monkeypatch.setattr("serve.ui.sign_ins.time.time", lambda: now + 3610)
    assert sign_ins.key_of(cookie) is None


def test_neither_half_tells_the_key_and_another_process_puts_them_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie = SignIns(tmp_path, 1.0).begin(KEY)
    (file,) = tmp_path.iterdir()
    kept = file.read_text()
    for text in (KEY, KEY.encode().hex(), KEY[-64:], cookie.partition(".")[0]):
        assert text not in kept
        assert text not in file.name
        assert text == cookie.partition(".")[0] or text not in cookie
    assert file.stat().st_mode & 0o077 == 0
    assert SignIns(tmp_path, 1.0).key_of(cookie) == KEY
    now = time.time()
    monkeypatch.setattr("serve.ui.sign_ins.time.time", lambda: now + 4000)
    SignIns(tmp_path, 1.0).begin(KEY)
    assert not file.exists()  # what is over is removed
    (other,) = tmp_path.iterdir()
    other.write_text(json.dumps({"half": 7}))
    assert SignIns(tmp_path, 1.0).key_of(cookie) is None


def test_a_ticket_gives_its_cookie_once_and_soon(sign_ins: SignIns, monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = sign_ins.offer("cookie")
    assert sign_ins.is_offered(ticket)
    assert [sign_ins.fetch(ticket), sign_ins.fetch(ticket), sign_ins.fetch("")] == ["cookie", None, None]
    assert not sign_ins.is_offered(ticket)
    late, now = sign_ins.offer("late"), time.monotonic()
    monkeypatch.setattr("serve.ui.sign_ins.time.monotonic", lambda: now + 61)
    assert not sign_ins.is_offered(late)
    assert sign_ins.fetch(late) is None


def test_a_folder_that_cannot_be_written_is_told_and_sign_ins_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[dict[str, str]] = []
    monkeypatch.setattr("os.execve", lambda path, command, environment: started.append(environment))
    (tmp_path / "file").touch()
    for folder in (tmp_path / "new" / "folder", tmp_path / "file" / "below"):
        ui.main(["--sign-ins", str(folder), "--sign-in-hours", "2"])
    assert [each["LESION_PAGE_SIGN_INS"] for each in started] == [str(tmp_path / "new" / "folder"), ""]
    assert {each["LESION_PAGE_SIGN_IN_HOURS"] for each in started} == {"2.0"}
    assert (tmp_path / "new" / "folder").stat().st_mode & 0o077 == 0
    assert "Sign-ins end with this process, since" in capsys.readouterr().out
