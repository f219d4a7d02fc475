"""Who may send what: every route for every role, servers without keys, limits, and a database that goes away."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text as sql
from starlette.testclient import TestClient

from lesion.auth import api_keys
from lesion.core.errors import ConfigError
from lesion.core.roles import ROLES
from lesion.database.storage import Storage
from serve.http import auth
from serve.http.auth import check_address
from serve.http.rate_limits import usage_today
from tests.support.bundles.registry_bundles import sealed
from tests.support.images.loop_images import new_storage
from tests.support.servers.app import bearer, client_of, make_app, refusal
from tests.support.servers.serving import eventually


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return new_storage(tmp_path / "loop")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return sealed(tmp_path / "bundle")


VIEWER = {("GET", path) for path in ("/", "/info", "/me", "/metrics")} | {("POST", "/predict")}
VIEWER |= {("GET", f"/dataset/{what}") for what in ("stats", "montage")}
VIEWER |= {("GET", path) for path in ("/models", "/models/{version}", "/deployments")}
VIEWER |= {("GET", f"/models/{{version}}/{what}") for what in ("evaluation", "report", "card")}
CONTRIBUTOR = VIEWER | {("POST", "/upload_training_data"), ("POST", "/feedback"), ("POST", "/feedback/undo")}
CONTRIBUTOR |= {("GET", "/models/{version}/bundle"), ("GET", "/images/{sha256}/thumbnail")}
OPEN = {("GET", "/health"), ("GET", "/health/live")}
SAMPLES = {"version": "0" * 12, "sha256": "0" * 64, "job_id": "0" * 32, "key_id": "0" * 16, "request_id": "r"}


@pytest.fixture
def client(bundle: Path, storage: Storage) -> Iterator[TestClient]:
    with client_of(make_app(bundle, storage)) as client:
        yield client


@pytest.fixture
def texts(storage: Storage) -> dict[str, str]:
    """One key for each role, one that was revoked and one whose secret is wrong."""
    made = {role: api_keys.create(storage, role, role, "test") for role in reversed(ROLES)}
    revoked = api_keys.create(storage, "gone", "admin", "test")
    api_keys.revoke(storage, revoked.split("_")[1], "test")
    return made | {"revoked": revoked, "wrong": made["admin"][:-4] + "beef"}


def saved(storage: Storage) -> dict[str, int]:
    """The requests of each key that are in the database."""
    with storage.session() as session:
        return usage_today(session)


def operations(client: TestClient) -> list[tuple[str, str]]:
    assert isinstance(client.app, FastAPI)
    paths = client.app.openapi()["paths"]
    return [(method.upper(), path) for path, item in paths.items() for method in item]


@pytest.mark.parametrize(
    ("path", "role", "code"),
    [
        ("/keys", "", "key_missing"),
        ("/keys", "wrong", "key_unknown"),
        ("/keys", "viewer", "role_insufficient"),
        ("/rollback", "contributor", "role_insufficient"),
        ("/upload_training_data", "viewer", "role_insufficient"),
        ("/feedback", "revoked", "key_unknown"),
        ("/predict", "", "key_missing"),
    ],
)
def test_a_stranger_is_refused_before_a_byte_of_the_body_is_read(
    client: TestClient, texts: dict[str, str], path: str, role: str, code: str
) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    key = [(b"authorization", f"Bearer {texts[role]}".encode())] if role else []
    scope: dict[str, Any] = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"100"), *key],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "scheme": "http", "http_version": "1.1",
    }  # fmt: skip
    eventually(lambda: client.get("/me").status_code == 401)  # the keys are known
    call: Any = client.app
    asyncio.run(call(scope, receive, send))
    assert sent[0]["status"] == (403 if code == "role_insufficient" else 401)
    assert json.loads(sent[1]["body"])["code"] == code


@pytest.mark.usefixtures("texts")
def test_a_request_counts_once_against_its_limit(client: TestClient, storage: Storage) -> None:
    key = bearer(api_keys.create(storage, "three", "viewer", "test", per_minute=3))
    eventually(lambda: client.get("/me", headers=key).status_code == 200)  # the first that the server knows it by
    assert [client.get("/me", headers=key).status_code for _ in range(3)] == [200, 200, 429]


class TestRoles:
    def test_every_route_for_every_role(self, texts, client):
        allowed = {"viewer": VIEWER | OPEN, "contributor": CONTRIBUTOR | OPEN}
        walked = operations(client)
        assert set(walked) > CONTRIBUTOR | OPEN
        assert len(walked) > 20
        for method, path in walked:
            url = path.format(**SAMPLES)
            for who in ("nobody", "revoked", "wrong", *ROLES):
                headers = bearer(texts[who]) if who in texts else {}
                response = client.request(method, url, headers=headers)
                status, where = response.status_code, f"{method} {path} as {who}"
                if (method, path) in OPEN or who == "admin":
                    assert status not in (401, 403, 500), where
                elif who in ("viewer", "contributor"):
                    assert (status == 403) == ((method, path) not in allowed[who]), where
                    assert status not in (401, 500), where
                else:
                    refusal(response, 401, "key_missing" if who == "nobody" else "key_unknown")

    def test_the_description_names_both_ways_to_send_a_key(self, client):
        document = client.app.openapi()
        assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
        assert document["paths"]["/predict"]["post"]["security"] == [{"bearer": []}, {"header": []}]
        assert "security" not in document["paths"]["/health"]["get"]

    def test_both_headers_are_taken(self, texts, client):
        assert client.get("/info", headers=bearer(texts["viewer"])).status_code == 200
        assert client.get("/info", headers={"X-API-Key": texts["viewer"]}).status_code == 200
        basic = {"Authorization": "Basic abc", "X-API-Key": texts["viewer"]}  # a proxy's own credentials beside the key
        assert client.get("/info", headers=basic).status_code == 200
        refusal(client.get(f"/info?key={texts['viewer']}"), 401, "key_missing")

    def test_a_refused_role_is_told_which_it_needs(self, texts, client):
        response = client.get("/keys", headers=bearer(texts["contributor"]))
        refusal(response, 403, "role_insufficient")
        assert "role admin" in response.json()["detail"]

    def test_who_did_it_is_written_down(self, texts, client, storage):
        made = client.post("/keys", headers=bearer(texts["admin"]), json={"name": "new", "role": "viewer"}).json()
        with storage.session() as session:
            actors = session.execute(sql("select actor from audit_log where subject = :id"), {"id": made["id"]})
            assert list(actors.scalars()) == [f"admin ({texts['admin'].split('_')[1]})"]

    def test_me_is_who_the_key_belongs_to(self, texts, client):
        for role in ROLES:
            assert client.get("/me", headers=bearer(texts[role])).json() == {"name": role, "role": role, "keys": True}
        refusal(client.get("/me"), 401, "key_missing")
        refusal(client.get("/me", headers=bearer(texts["revoked"])), 401, "key_unknown")

    def test_me_without_keys_is_this_machine_or_anybody(self, bundle, storage):
        for kept, settings, name in (
            (None, {}, "local"),
            (storage, {}, "local"),
            (None, {"open_access": True}, "anonymous"),
        ):
            with client_of(make_app(bundle, kept, **settings)) as client:
                assert client.get("/me").json() == {"name": name, "role": "admin", "keys": False}


class TestKeysOverHttp:
    def test_made_used_listed_and_revoked(self, client):
        made = client.post("/keys", json={"name": "boss", "role": "admin"})
        assert made.status_code == 201
        assert made.headers["cache-control"] == "no-store"
        boss = bearer(made.json()["key"])
        refusal(client.get("/info"), 401, "key_missing")  # from the first key on
        ward = client.post("/keys", headers=boss, json={"name": "ward", "role": "viewer", "per_minute": 9}).json()
        assert client.get("/info", headers=bearer(ward["key"])).status_code == 200
        listed = client.get("/keys", headers=boss)
        assert [(key["name"], key["per_minute"]) for key in listed.json()] == [("boss", None), ("ward", 9)]
        assert ward["key"].split("_")[2] not in listed.text
        assert client.delete(f"/keys/{ward['id']}", headers=boss).json()["revoked_at"] is not None
        refusal(client.get("/info", headers=bearer(ward["key"])), 401, "key_unknown")

    def test_refusals(self, client, texts):
        boss = bearer(texts["admin"])
        refusal(client.delete(f"/keys/{texts['admin'].split('_')[1]}", headers=boss), 409, "last_admin_key")
        refusal(client.delete(f"/keys/{'0' * 16}", headers=boss), 404, "key_not_found")
        unknown, extra = {"name": "a", "role": "root"}, {"name": "a", "role": "viewer", "id": "0"}
        bodies: list[Any] = [unknown, {"name": "a"}, extra, []]
        for body in bodies:
            refusal(client.post("/keys", headers=boss, json=body), 422, "parameter_invalid")
        refusal(client.post("/keys", headers=boss, json={"name": "a\nb", "role": "viewer"}), 422, "key_invalid")

    @pytest.mark.slow
    def test_a_key_revoked_elsewhere_is_refused_within_seconds(self, client, texts, storage):
        key = bearer(texts["viewer"])
        assert client.get("/info", headers=key).status_code == 200
        api_keys.revoke(storage, texts["viewer"].split("_")[1], "the command line")
        eventually(lambda: client.get("/info", headers=key).status_code == 401, 5.0)


class TestWithoutKeys:
    def test_addresses(self):
        for host in ("127.0.0.1", "localhost", "::1", "127.5.5.5"):
            check_address(host, keys=False, open_access=False)
        for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", "localhost.example.org", "127.0.0.1.example.org"):
            check_address(host, keys=True, open_access=False)
            check_address(host, keys=False, open_access=True)
            with pytest.raises(ConfigError, match=r"lesion keys create NAME --role admin") as caught:
                check_address(host, keys=False, open_access=False)
            assert caught.value.code == "keys_missing"

    @pytest.mark.parametrize("storage", [None])
    def test_without_a_storage_this_machine_may_predict(self, bundle, storage):
        with client_of(make_app(bundle, storage)) as client:
            assert client.get("/info").status_code == 200
            refusal(client.get("/keys"), 404, "no_storage")
            refusal(client.post("/upload_training_data"), 404, "no_storage")

    @pytest.mark.parametrize(
        "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "a.localhost:1", "localhost."]
    )
    def test_this_machine_under_its_own_names(self, client, host):
        assert client.get("/info", headers={"Host": host}).status_code == 200

    @pytest.mark.parametrize(
        "host",
        ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.1.5:8000", "evil@localhost", "",
         "localhost:80:80", "[::1", "127.0.0.1 evil", "0.0.0.0:8000", "localhost/"],
    )  # fmt: skip
    def test_a_name_that_was_rebound_to_this_machine_is_refused(self, client, host):
        for method, url in (("GET", "/info"), ("POST", "/retrain"), ("POST", "/keys")):
            refusal(client.request(method, url, headers={"Host": host}), 403, "not_local")
        assert client.get("/health", headers={"Host": host}).status_code == 503  # no worker, but an answer
        alive = client.get("/health/live", headers={"Host": host})
        assert (alive.status_code, alive.json()) == (200, {"live": True})

    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "null", "http://127.0.0.1:3000", "http://localhost:8000", ""]
    )
    def test_pages_of_other_sites_are_refused(self, client, origin):
        refusal(client.post("/rollback", json={"reason": "x"}, headers={"Origin": origin}), 403, "origin_foreign")

    def test_a_page_of_this_server_is_answered(self, client):
        assert client.get("/info", headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200

    def test_another_machine_is_refused_whatever_it_says(self, bundle, storage):
        with client_of(make_app(bundle, storage), peer=("192.0.2.7", 4000)) as client:
            refusal(client.get("/info"), 403, "not_local")

    def test_open_access_answers_everybody_but_other_sites_pages(self, bundle, storage):
        app = make_app(bundle, storage, open_access=True)
        with client_of(app, "http://model.clinic.example", ("192.0.2.7", 4000)) as client:
            assert client.get("/info").status_code == 200
            refusal(client.get("/info", headers={"Origin": "https://evil.example"}), 403, "origin_foreign")

    def test_open_access_ends_with_the_first_key(self, bundle, storage, texts):
        with client_of(make_app(bundle, storage, open_access=True)) as client:
            refusal(client.get("/info"), 401, "key_missing")


class TestLimits:
    def test_a_keys_own_limit_and_the_servers(self, bundle, storage, texts):
        mine = api_keys.create(storage, "mine", "viewer", "test", per_minute=5)
        with client_of(make_app(bundle, storage, per_minute=3)) as client:
            for text, limit in ((texts["viewer"], 3), (mine, 5)):
                answers = [client.get("/info", headers=bearer(text)) for _ in range(limit + 2)]
                assert [answer.status_code for answer in answers] == [200] * limit + [429] * 2
                refusal(answers[-1], 429, "rate_limited")
                assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
            assert client.get("/health").status_code == 503

    def test_api_processes_share_a_limit(self, bundle, storage, texts):
        with client_of(make_app(bundle, storage, per_minute=8, api_processes=4)) as client:
            answers = [client.get("/info", headers=bearer(texts["viewer"])).status_code for _ in range(3)]
        assert answers == [200, 200, 429]

    def test_a_quota_counts_over_servers_and_restarts(self, bundle, storage, texts):
        key = bearer(texts["viewer"])
        for served in ([200, 200], [200, 429]):
            with client_of(make_app(bundle, storage, per_day=3)) as client:
                answers = [client.get("/info", headers=key) for _ in served]
                assert [answer.status_code for answer in answers] == served
        refusal(answers[-1], 429, "quota_spent")
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 86_400
        assert saved(storage) == {texts["viewer"].split("_")[1]: 3}

    @pytest.mark.slow
    def test_servers_that_run_at_once_see_each_others_requests(self, bundle, storage, texts):
        key = bearer(texts["viewer"])
        apps = [make_app(bundle, storage, per_day=10) for _ in range(2)]
        with client_of(apps[0]) as one, client_of(apps[1]) as other:
            assert [one.get("/info", headers=key).status_code for _ in range(10)] == [200] * 10
            eventually(lambda: saved(storage) == {texts["viewer"].split("_")[1]: 10}, 5.0)
            time.sleep(1.5)  # until the other one has read it too
            refusal(other.get("/info", headers=key), 429, "quota_spent")
            listed = one.get("/keys", headers=bearer(texts["admin"])).json()
        assert {each["name"]: each["requests_today"] for each in listed}["viewer"] == 10

    def test_a_refused_request_costs_nothing(self, bundle, storage, texts):
        key = bearer(texts["viewer"])
        with client_of(make_app(bundle, storage, per_day=2)) as client:
            assert {client.get("/keys", headers=key).status_code for _ in range(5)} == {403}
            assert client.get("/info", headers=key).status_code == 200


class TestTrouble:
    @pytest.mark.slow
    def test_the_last_known_keys_are_good_while_the_database_is_away(self, bundle, storage, texts):
        key = bearer(texts["viewer"])
        with client_of(make_app(bundle, storage)) as client:
            assert client.get("/info", headers=key).status_code == 200
            with storage.engine.begin() as connection:
                connection.execute(sql("alter table api_keys rename to away"))
            time.sleep(1.5)
            assert client.get("/info", headers=key).status_code == 200
            refusal(client.get("/info", headers=bearer(texts["wrong"])), 401, "key_unknown")
            refusal(client.get("/keys", headers=bearer(texts["admin"])), 503, "database_unavailable")
            with storage.engine.begin() as connection:
                connection.execute(sql("alter table away rename to api_keys"))
            api_keys.revoke(storage, texts["viewer"].split("_")[1], "test")
            eventually(lambda: client.get("/info", headers=key).status_code == 401, 5.0)
        assert saved(storage)[texts["admin"].split("_")[1]] == 1  # what was counted meanwhile is not lost

    def test_what_is_being_saved_when_a_server_ends_is_saved_then(self, bundle, storage, texts, monkeypatch):
        saving = threading.Event()

        async def to_thread(function, *arguments):  # as where all threads are busy
            if arguments[1]:
                saving.set()
                await asyncio.sleep(0.5)
            return function(*arguments)

        monkeypatch.setattr(asyncio, "to_thread", to_thread)
        monkeypatch.setattr(auth, "_SYNC_S", 0.01)
        with client_of(make_app(bundle, storage)) as client:
            assert client.get("/info", headers=bearer(texts["viewer"])).status_code == 200
            assert saving.wait(10)
        assert saved(storage)[texts["viewer"].split("_")[1]] == 1

    def test_a_server_does_not_start_where_it_cannot_read_the_keys(self, bundle, storage):
        with storage.engine.begin() as connection:
            connection.execute(sql("drop table api_keys"))
        with pytest.raises(Exception, match="api_keys"), client_of(make_app(bundle, storage)):
            pass


class TestBodies:
    def test_a_path_may_take_larger_bodies(self, client):
        size = {"/predict": 1000, "/feedback": 5000}
        for path, bound in size.items():
            refusal(client.post(path, content=bytes(bound + 1)), 413, "body_too_large")
            assert client.post(path, content=bytes(bound)).status_code != 413
            chunks = (bytes(500) for _ in range(bound // 500 + 1))
            # Without a length nothing is refused before it is read; here the worker is missing first.
            assert client.post(path, content=chunks).status_code == 503
