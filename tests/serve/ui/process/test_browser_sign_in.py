"""Staying signed in in a real browser: after F5, in a second window and after the page was started again."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from sqlalchemy import delete

from lesion.auth import api_keys
from lesion.core.roles import Role
from lesion.database.storage import Storage
from lesion.database.tables import ApiKey
from scripts.dev.browsing import browser_context, go, press, settle
from serve.deploy.ports import free_port
from tests.support.servers.app import bearer
from tests.support.servers.browser import IN_A_BROWSER, PageProcess, shows
from tests.support.servers.serving import ServerProcess, eventually

pytestmark = IN_A_BROWSER
Keys = dict[Role, str]


@pytest.fixture
def keys(lamp_server: ServerProcess, lamp_storage: Storage) -> Iterator[Keys]:
    """A key of each of two roles: the server asks for one while a test runs."""
    roles: tuple[Role, ...] = ("admin", "viewer")
    yield_keys: Keys = {role: api_keys.create(lamp_storage, f"a {role}", role, "ann") for role in roles}
    eventually(lambda: httpx.get(f"{lamp_server.url}/me").status_code == 401)
    yield yield_keys
    with lamp_storage.session() as session:
        session.execute(delete(ApiKey))
    eventually(lambda: httpx.get(f"{lamp_server.url}/me").status_code == 200)


@pytest.fixture
def user(chrome: Browser) -> Iterator[BrowserContext]:
    """A browser that has no cookies yet."""
    with browser_context(chrome) as context:
        yield context


def open_page(user: BrowserContext, served: PageProcess, path: str = "") -> Page:
    page = user.new_page()
    page.goto(f"{served.url}/{path}")
    settle(page)
    return page


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key", exact=True).fill(key)
    press(page, "Sign in")


def asks_for_a_key(page: Page) -> None:
    expect(page.get_by_label("API key", exact=True)).to_be_visible(timeout=20_000)


def test_a_sign_in_lasts_until_the_sign_out_and_then_nowhere(
    lamp_server: ServerProcess, keys: Keys, user: BrowserContext
) -> None:
    port = free_port()
    with PageProcess(lamp_server.url, port=port) as served:
        page = open_page(user, served, "model")
        sign_in(page, "lesion_wrong")
        shows(page, "unknown or was revoked")
        assert user.cookies() == [] or all("lesion" not in each["name"] for each in user.cookies())
        sign_in(page, keys["admin"])
        shows(page, "Signed in as a admin, admin.")
        eventually(lambda: any("lesion" in each["name"] for each in user.cookies()))
        (cookie,) = (each for each in user.cookies() if "lesion" in each["name"])
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["secure"]) == (True, "Strict", False)
        secret = keys["admin"].rpartition("_")[2]
        for text in (secret, keys["admin"].encode().hex()):
            assert text not in cookie["value"]
        assert "lesion" not in page.evaluate("document.cookie")
        page.reload()
        shows(page, "Signed in as a admin, admin.")
        expect(page.get_by_role("heading", name="Model Info", exact=True)).to_be_visible()
        second = open_page(user, served, "admin")
        shows(second, "Signed in as a admin, admin.")
    with PageProcess(lamp_server.url, port=port) as served:
        page.reload()
        shows(page, "Signed in as a admin, admin.")
        shows(second, "Signed in as a admin, admin.")
        press(page, "Sign out")
        asks_for_a_key(page)
        page.reload()
        asks_for_a_key(page)
        go(second, "Predict")
        asks_for_a_key(second)
        kept = {"name": cookie["name"], "value": cookie["value"], "url": served.url}
        user.add_cookies([kept])  # type: ignore[list-item]  # somebody has kept it
        asks_for_a_key(open_page(user, served))


def test_another_user_of_the_browser_sees_nothing_of_the_first(
    lamp_server: ServerProcess, keys: Keys, user: BrowserContext
) -> None:
    with PageProcess(lamp_server.url) as served:
        page = open_page(user, served)
        sign_in(page, keys["admin"])
        shows(page, "Signed in as a admin, admin.")
        eventually(lambda: any("lesion" in each["name"] for each in user.cookies()))
        second = open_page(user, served)
        shows(second, "Signed in as a admin, admin.")
        press(second, "Sign out")
        sign_in(second, keys["viewer"])
        shows(second, "Signed in as a viewer, viewer.")
        go(page, "Model Info")
        asks_for_a_key(page)
        page.reload()
        shows(page, "Signed in as a viewer, viewer.")


def test_a_revoked_key_and_an_expired_sign_in_ask_for_a_key(
    lamp_server: ServerProcess, lamp_storage: Storage, keys: Keys, user: BrowserContext
) -> None:
    with PageProcess(lamp_server.url, "--sign-in-hours", "0.003") as served:
        page = open_page(user, served)
        sign_in(page, keys["admin"])
        shows(page, "Signed in as a admin, admin.")
        page.wait_for_timeout(11_000)
        go(page, "Model Info")
        asks_for_a_key(page)
        page.reload()
        asks_for_a_key(page)
    with PageProcess(lamp_server.url) as served:
        page = open_page(user, served)
        sign_in(page, keys["viewer"])
        shows(page, "Signed in as a viewer, viewer.")
        eventually(lambda: any("lesion" in each["name"] for each in user.cookies()))
        api_keys.revoke(lamp_storage, keys["viewer"].split("_")[1], "ann")
        head = bearer(keys["viewer"])
        eventually(lambda: httpx.get(f"{lamp_server.url}/me", headers=head).status_code == 401)
        page.wait_for_timeout(11_000)  # the page keeps answers for ten seconds
        page.reload()
        asks_for_a_key(page)


def test_no_other_site_gets_or_sets_a_cookie(lamp_server: ServerProcess) -> None:
    with PageProcess(lamp_server.url) as served:
        for headers in ({}, {"X-Lesion-Ticket": "guessed"}):
            answer = httpx.post(f"{served.url}/sign-in", headers=headers)
            assert (answer.status_code, answer.headers.get("set-cookie")) == (403, None)
        assert "set-cookie" not in httpx.get(f"{served.url}/sign-in", headers={"X-Lesion-Ticket": "x"}).headers
        asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        asked["Access-Control-Request-Headers"] = "x-lesion-ticket"
        preflight = httpx.options(f"{served.url}/sign-in", headers=asked)
        assert "access-control-allow-origin" not in preflight.headers
