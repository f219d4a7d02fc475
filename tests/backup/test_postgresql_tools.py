"""What is special about PostgreSQL: its tools, other tables, and servers that still use the tables."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from lesion.backup import restore_targets
from lesion.backup.backup_manifest import BackupError
from lesion.backup.creation import create_backup
from lesion.backup.postgres_tools import TOOLS_VARIABLE, find_tool
from lesion.backup.restore import restore_backup
from lesion.core.errors import ConfigError
from lesion.database.storage import Storage
from lesion.database.tables import Image
from tests.support.backups import Servers
from tests.support.servers.postgresql import PASSWORD


@pytest.mark.slow
def test_the_database_s_password_is_on_no_command_line(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = servers("argv", upgrade=True)
    calls: list[tuple[list[str], dict[str, str]]] = []
    run = subprocess.run

    def spy(command: list[str], **settings: Any) -> Any:
        calls.append((command, settings.get("env", {})))
        return run(command, **settings)

    monkeypatch.setattr("lesion.backup.postgres_tools.subprocess.run", spy)
    create_backup(storage, tmp_path / "backup")
    restore_backup(servers("argv2"), tmp_path / "backup", "ann")
    worked = [(command, env) for command, env in calls if env]
    assert [Path(command[0]).name for command, _ in worked] == ["pg_dump", "pg_restore"]
    assert all(env["PGPASSWORD"] == PASSWORD for _, env in worked)
    assert not [word for command, _ in calls for word in command if PASSWORD in word]


@pytest.mark.slow
def test_what_else_is_in_the_database_is_left_alone(servers: Servers, tmp_path: Path) -> None:
    storage = servers("shared", upgrade=True)
    with storage.engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA others"))
        connection.execute(text("CREATE TABLE others.bills (id INT)"))
    create_backup(storage, tmp_path / "backup")
    restore_backup(storage, tmp_path / "backup", "ann", wipe=True)
    with storage.engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM others.bills")) == 0
        connection.execute(text("CREATE TABLE bills (id INT)"))
    with pytest.raises(BackupError, match="'bills'") as caught:
        restore_backup(storage, tmp_path / "backup", "ann", wipe=True)
    assert caught.value.code == "database_foreign"


@pytest.mark.slow
def test_a_server_that_still_uses_the_tables_is_waited_for_but_not_for_ever(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = servers("busy", upgrade=True)
    monkeypatch.setattr(restore_targets, "_LOCK_TIMEOUT", "100ms")
    create_backup(storage, tmp_path / "backup")
    with storage.session() as session:
        session.execute(select(Image.id))
        with pytest.raises(BackupError, match="Stop every server and worker") as caught:
            restore_backup(storage, tmp_path / "backup", "ann", wipe=True)
    assert caught.value.code == "database_busy"


@pytest.mark.slow
def test_kinds_of_databases_do_not_mix(servers: Servers, small: Storage, tmp_path: Path) -> None:
    create_backup(small, tmp_path / "backup")
    with pytest.raises(BackupError, match="sqlite") as caught:
        restore_backup(servers("kinds"), tmp_path / "backup", "ann")
    assert caught.value.code == "database_kind"


@pytest.mark.parametrize(("said", "code"), [(None, "pg_tool_missing"), ("(PostgreSQL) 9.6.1", "pg_tool_old")])
def test_tools_that_are_missing_or_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, code: str
) -> None:
    monkeypatch.setenv(TOOLS_VARIABLE, str(tmp_path))
    if said:
        (tmp_path / "pg_dump").write_text(f"#!/bin/sh\necho 'pg_dump {said}'\n")
        (tmp_path / "pg_dump").chmod(0o755)
    with pytest.raises(ConfigError, match="LESION_PG_BIN") as caught:
        find_tool("pg_dump", 18)
    assert caught.value.code == code
