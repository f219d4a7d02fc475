"""Servers follow the champion: a swap under load fails no request, a broken bundle is refused, no trouble stops it."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from sqlalchemy import text

from lesion.core.errors import BundleError, ConfigError, LesionError
from lesion.intake.uploads import ModelOpinion
from lesion.model.bundle import Bundle
from lesion.model.predictor import Prediction, Predictor
from lesion.registry.registry import Registry
from serve.factory import open_champion
from serve.inference.inference_worker import InferenceAPI
from serve.inference.messages import InferenceRequest
from serve.inference.shared_state import SharedState
from serve.model_follower import ModelFollower
from serve.settings import ServerSettings
from tests.support.bundles.registry_bundles import retempered, sealed
from tests.support.images.hostile import encode, gradient
from tests.support.images.loop_images import new_storage
from tests.support.servers.serving import ServerProcess, eventually
from tests.support.servers.traffic import Traffic

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process


# The follower, with bundles that run nowhere


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(new_storage(tmp_path / "loop"))


@pytest.fixture
def versions(registry: Registry, tmp_path: Path) -> list[str]:
    made = [registry.register(sealed(tmp_path / f"bundle{number}", 1.0 + number)) for number in range(3)]
    registry.deploy_first(made[0], "import", "the first")
    return made


def damage(registry: Registry, version: str) -> None:
    """Change a file of a bundle in the store."""
    (Path(registry.storage.files) / "bundles" / version / "MODEL_CARD.md").write_text("edited")


def follower(registry: Registry, actor: str | None = "server") -> ModelFollower[Bundle]:
    made = ModelFollower(registry, Bundle.open, actor)
    made.load_champion()
    return made


def test_a_new_champion_is_taken_up(registry: Registry, versions: list[str]) -> None:
    followed = follower(registry)
    assert followed.active.version == versions[0]
    before = followed.active
    followed.try_update()
    assert followed.active is before
    row = registry.promote(versions[1], "anna", "better")
    followed.try_update()
    assert (followed.active.deployment, followed.active.version) == (row.id, versions[1])
    assert followed.active.value.version == versions[1]
    assert before.value.version == versions[0]  # who holds the old one goes on with it
    registry.rollback("anna", "worse")
    followed.try_update()
    assert followed.active.value.version == versions[0]


def test_a_broken_champion_is_refused_and_the_old_one_serves_on(registry: Registry, versions: list[str]) -> None:
    followed = follower(registry)
    damage(registry, versions[1])
    registry.promote(versions[1], "anna", "better")
    followed.try_update()
    assert followed.active.version == versions[0]
    assert followed.following
    champion = registry.champion()
    assert champion is not None
    assert (champion.action, champion.version, champion.actor) == ("refused", versions[0], "server")
    followed.try_update()
    assert followed.active.deployment == champion.id


def test_who_only_follows_refuses_nothing(registry: Registry, versions: list[str]) -> None:
    followed = follower(registry, actor=None)
    damage(registry, versions[1])
    registry.promote(versions[1], "anna", "better")
    followed.try_update()
    assert followed.active.version == versions[0]
    assert not followed.following
    assert "MODEL_CARD.md" in followed.trouble
    assert len(registry.history()) == 2


def test_a_start_passes_over_broken_champions(registry: Registry, versions: list[str]) -> None:
    for version in versions[1:]:
        registry.promote(version, "anna", "better")
        damage(registry, version)
    assert follower(registry).active.version == versions[0]
    assert [row.version for row in registry.history()] == [*versions, versions[1], versions[0]]


def test_with_no_bundle_that_loads_there_is_nothing_to_serve(registry: Registry, versions: list[str]) -> None:
    damage(registry, versions[0])
    with pytest.raises(LesionError) as caught:
        follower(registry)
    assert caught.value.code == "nothing_before"


def test_a_ledger_that_does_not_answer_stops_nothing(registry: Registry, versions: list[str]) -> None:
    followed = follower(registry)
    registry.promote(versions[1], "anna", "better")
    with registry.storage.session() as session:
        session.execute(text("ALTER TABLE deployments RENAME TO gone"))
    followed.try_update()
    assert not followed.following
    assert "no such table" in followed.trouble
    assert followed.active.version == versions[0]
    with registry.storage.session() as session:
        session.execute(text("ALTER TABLE gone RENAME TO deployments"))
    followed.try_update()
    assert followed.following
    assert followed.active.version == versions[1]


def test_a_server_starts_with_the_champion(registry: Registry, versions: list[str], tmp_path: Path) -> None:
    storage = registry.storage
    assert open_champion(storage).version == versions[0]
    registry.promote(versions[1], "anna", "better")
    assert open_champion(storage).version == versions[1]
    assert open_champion(storage, tmp_path / "bundle0").version == versions[1]  # the same command line, later
    with pytest.raises(ConfigError) as caught:
        open_champion(storage, sealed(tmp_path / "foreign", 9.0))
    assert caught.value.code == "bundle_not_registered"
    with pytest.raises(BundleError):
        open_champion(storage, tmp_path / "nothing")
    with pytest.raises(LesionError) as empty:
        open_champion(new_storage(tmp_path / "empty"))
    assert empty.value.code == "ledger_empty"


def test_versions_in_the_shared_state_are_those_that_were_written() -> None:
    state = SharedState(2, 1)
    assert state.versions == [None, None]
    state.worker_serves(1, "00ab3f9a0c41", "openvino:cpu", "f32")
    assert state.versions == [None, "00ab3f9a0c41"]
    assert state.ready == 0
    state.worker_is_ready(1, 4711)
    state.worker_follows(1, False)
    assert not state.following
    state.worker_is_gone(1)
    assert state.following  # its successor will tell
    assert state.versions[1] == "00ab3f9a0c41"  # what it may come back with


# With a real network


@pytest.fixture(scope="module")
def softer(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second model, whose probabilities differ from the first one's."""
    return retempered(bundle_path, tmp_path_factory.mktemp("softer") / "bundle", 4.0)


def test_one_batch_is_answered_by_one_version(bundle_path: Path, softer: Path) -> None:
    models = [Predictor.load(path, "cpu", precision="f32") for path in (bundle_path, softer)]
    api = InferenceAPI(bundle_path, ServerSettings(device="cpu", precision="f32", batch_timeout=0.0))
    api.shared_state, api.worker = SharedState(1, 1), 0
    turns = iter([*models, *models])
    api.current = lambda: next(turns)
    request = InferenceRequest(encode(gradient()))
    jobs = [request, replace(request, opinion=True), request]
    answered = []
    for _ in range(4):
        first, opinion, last = cast(Any, api.predict(jobs))
        answered.append({first["model_version"], opinion.version, last["model_version"]})
    assert answered == [{model.bundle.version} for model in (*models, *models)]


def test_an_opinion_is_the_whole_answer_and_nothing_else(bundle_path: Path) -> None:
    model = Predictor.load(bundle_path, "cpu", precision="f32")
    api = InferenceAPI(bundle_path, ServerSettings(device="cpu", precision="f32", batch_timeout=0.0))
    api.shared_state, api.worker, api.current = SharedState(1, 1), 0, lambda: model
    data = encode(gradient())
    expected = model.predict([data])[0]
    assert isinstance(expected, Prediction)
    opinion = ModelOpinion(expected.probabilities, expected.in_domain, expected.domain_distance, model.bundle.version)
    assert api.predict([InferenceRequest(data, opinion=True)]) == [opinion]


IMAGES = [encode(np.full((48, 48, 3), shade, np.uint8)) for shade in (20, 120, 220)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loop")


@pytest.fixture(scope="module")
def server(bundle_path: Path, root: Path) -> Iterator[ServerProcess]:
    settings = [f"storage_root={root}", "storage=local", "worker=false", "server.workers=2", "server.precision=f32"]
    with ServerProcess(bundle_path, *settings) as running:
        yield running


@pytest.fixture(scope="module")
def ledger(server: ServerProcess, root: Path) -> Registry:
    return Registry(new_storage(root))


def swapped(server: ServerProcess, version: str) -> None:
    """Wait until every worker serves a version."""
    eventually(lambda: server.client.get("/health").json()["workers"]["versions"] == [version, version])


@pytest.fixture
def first(server: ServerProcess, ledger: Registry, bundle_path: Path) -> str:
    """The first model, which serves again at the beginning of each test."""
    version = Bundle.open(bundle_path).version
    champion = ledger.champion()
    assert champion is not None
    if champion.version != version:
        ledger.promote(version, "test", "another test begins")
    swapped(server, version)
    return version


@pytest.fixture
def second(server: ServerProcess, ledger: Registry, first: str, softer: Path) -> str:
    """The second model, which was promoted and serves."""
    version = ledger.register(softer, parent=first)
    ledger.promote(version, "anna", "better")
    swapped(server, version)
    return version


def test_the_first_model_was_imported(server: ServerProcess, first: str) -> None:
    health = server.client.get("/health").json()
    assert (health["status"], health["live"], health["ready"]) == ("ready", True, True)
    assert (health["model_version"], health["ledger"]) == (first, "followed")
    listed = server.client.get("/models").json()
    assert [(model["version"], model["champion"]) for model in listed] == [(first, True)]
    images = server.client.get(f"/models/{first}/images", params={"limit": 3}).json()
    assert len(images["images"]) == 3
    assert images["next"] == images["images"][-1]["sha256"]
    image = server.client.get(f"/images/{images['next']}").json()
    assert [seen["version"] for seen in image["versions"]] == [first]
    assert server.client.get("/deployments").json()[0]["action"] == "first"


def test_a_swap_under_load_fails_no_request(
    server: ServerProcess, ledger: Registry, first: str, softer: Path, bundle_path: Path
) -> None:
    second = ledger.register(softer, parent=first)
    with Traffic(server.url, IMAGES) as traffic:
        time.sleep(0.5)
        promoted = server.client.post(f"/models/{second}/promote", json={"reason": "better"})
        assert promoted.status_code == 200, promoted.text
        assert promoted.json()["actor"] == "local"
        swapped(server, second)
        time.sleep(0.5)
        assert server.client.post("/rollback", json={"reason": "worse"}).json()["version"] == first
        swapped(server, first)
        time.sleep(0.5)
    served = [str(answer["model_version"]) for _, answer in traffic.answers]
    assert set(served) == {first, second}
    assert (served[0], served[-1]) == (first, first)
    expected = {
        Bundle.open(path).version: Predictor.load(path, "cpu", precision="f32").predict(IMAGES)
        for path in (bundle_path, softer)
    }
    for which, answer in traffic.answers:
        prediction = expected[str(answer["model_version"])][which]
        assert isinstance(prediction, Prediction)
        assert answer["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-6)


def test_a_model_that_breaks_its_promise_is_refused(
    server: ServerProcess, ledger: Registry, first: str, bundle_path: Path, tmp_path: Path
) -> None:
    broken = ledger.register(retempered(bundle_path, tmp_path / "bundle", 1.5, broken=True), parent=first)
    with Traffic(server.url, IMAGES, clients=2) as traffic:
        row = ledger.promote(broken, "anna", "better")
        eventually(lambda: ledger.history()[-1].id > row.id)
        time.sleep(1.5)
    assert {answer["model_version"] for _, answer in traffic.answers} == {first}
    last = ledger.history()[-1]
    assert (last.action, last.version, last.follows) == ("refused", first, row.id)
    assert "golden answers" in last.reason
    assert server.client.get("/health").json()["status"] == "ready"


def test_a_worker_that_died_comes_back_with_the_champion(server: ServerProcess, second: str) -> None:
    for worker in server.workers():
        worker.kill()
    eventually(lambda: server.client.get("/health").json()["workers"]["ready"] == 0, 10)
    eventually(lambda: server.client.get("/health").json()["workers"]["ready"] == 2, 60)
    swapped(server, second)
    assert server.client.post("/predict", content=IMAGES[0]).json()["model_version"] == second


def test_without_its_ledger_a_server_answers_and_recovers(
    server: ServerProcess, ledger: Registry, first: str, second: str
) -> None:
    with ledger.storage.session() as session:
        session.execute(text("ALTER TABLE deployments RENAME TO gone"))
    try:
        eventually(lambda: server.client.get("/health").json()["ledger"] == "unreachable")
        assert server.client.get("/health").json()["status"] == "degraded"
        server.workers()[0].kill()
        eventually(lambda: server.client.get("/health").json()["workers"]["ready"] == 1)
        eventually(lambda: server.client.get("/health").json()["workers"]["ready"] == 2, 60)
        for _ in range(8):
            assert server.client.post("/predict", content=IMAGES[0]).json()["model_version"] == second
        assert server.client.get("/info").status_code == 200
    finally:
        with ledger.storage.session() as session:
            session.execute(text("ALTER TABLE gone RENAME TO deployments"))
    ledger.promote(first, "anna", "it is back")
    eventually(lambda: server.client.get("/health").json()["ledger"] == "followed", 60)
    swapped(server, first)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/models/000000000000", None, 404, "model_unknown"),
        ("GET", "/models/..%2F..%2Fetc", None, 404, "not_found"),
        ("GET", "/models/Passwd", None, 422, "parameter_invalid"),
        ("GET", f"/images/{'0' * 64}", None, 404, "image_unknown"),
        ("DELETE", f"/images/{'0' * 64}", {"reason": "why"}, 404, "image_unknown"),
        ("POST", "/models/000000000000/promote", {"reason": "why"}, 404, "model_unknown"),
        ("POST", "/models/000000000000/promote", {}, 422, "parameter_invalid"),
        ("POST", "/models/000000000000/promote", {"reason": " "}, 422, "parameter_invalid"),
        ("POST", "/rollback", {"reason": "why", "version": "x"}, 422, "parameter_invalid"),
    ],
)
def test_bad_requests(
    server: ServerProcess, method: str, path: str, body: dict[str, str] | None, status: int, code: str
) -> None:
    response = server.client.request(method, path, json=body)
    assert response.status_code == status, response.text
    assert response.json()["code"] == code


def test_an_image_is_deleted_and_its_versions_are_named(server: ServerProcess, ledger: Registry, first: str) -> None:
    sha256 = server.client.get(f"/models/{first}/images", params={"limit": 1}).json()["images"][0]["sha256"]
    file = Path(ledger.storage.files) / "images" / sha256[:2] / sha256
    assert file.is_file()
    answer = server.client.request("DELETE", f"/images/{sha256}", json={"reason": "consent withdrawn"}).json()
    assert [seen["version"] for seen in answer["versions"]] == [first]
    assert not file.exists()
    assert server.client.get(f"/images/{sha256}").json()["status"] == "deleted"


def test_the_same_command_starts_again_with_the_champion(
    server: ServerProcess, ledger: Registry, first: str, second: str, bundle_path: Path, root: Path
) -> None:
    settings = [f"storage_root={root}", "storage=local", "worker=false", "server.workers=1"]
    with ServerProcess(bundle_path, *settings) as again:
        assert again.client.post("/predict", content=IMAGES[0]).json()["model_version"] == second
        ledger.rollback("anna", "worse")
        eventually(lambda: again.client.get("/health").json()["workers"]["versions"] == [first])
    swapped(server, first)


def test_without_a_storage_there_are_no_models(bundle_path: Path) -> None:
    with ServerProcess(bundle_path, "server.workers=1") as plain:
        response = plain.client.get("/models")
        assert (response.status_code, response.json()["code"]) == (404, "no_storage")
        assert plain.client.get("/health").json()["ledger"] == "none"
