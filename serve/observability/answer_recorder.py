"""Records what an API process answers: first in a log of its own, then, in the background, in the database."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from lesion.core.errors import LesionError
from lesion.core.files import bytes_sha256
from lesion.database.storage import Storage
from lesion.database.tables import now
from lesion.identity.pseudonyms import Pseudonyms
from lesion.records.answer_record import AnswerRecord, moment_text
from lesion.records.chain import ChainKey
from lesion.records.importing import LogImporter
from lesion.records.record_log import RecordLog
from lesion.records.retention import remove_before
from serve.observability.prometheus import RECORDS_DELAYED
from serve.settings import RecordSettings

logger = logging.getLogger(__name__)

_IMPORT_S = 2.0  # between two imports
_RETENTION_S = 3600.0  # between two removals of old records
_LARGE_BYTES = 2**20  # of a file whose hash takes so long that other requests should not wait for it


class AnswerRecorder:
    """The records of one API process."""

    def __init__(self, storage: Storage, pseudonyms: Pseudonyms, settings: RecordSettings) -> None:
        self._storage = storage
        self._pseudonyms = pseudonyms
        self._settings = settings
        key, folder = ChainKey(pseudonyms.record_key), storage.cache / "records"
        self._key = key
        self._log = RecordLog(folder, key, sync=settings.sync)
        self._importer = LogImporter(storage, folder, key, own=self._log.chain)

    def check_room(self) -> None:
        """Raise a RecordsFullError if an answer could not be recorded, before it is computed."""
        self._log.check_room()

    async def record(self, request_id: str, key_id: str, data: bytes, recorded: Mapping[str, Any]) -> None:
        """Record an answer before it is given; ``recorded`` is what an inference worker says of it."""
        large = len(data) > _LARGE_BYTES
        sha256 = await asyncio.to_thread(bytes_sha256, data) if large else bytes_sha256(data)
        record = AnswerRecord(
            request_id=request_id,
            at=moment_text(now()),
            image=self._pseudonyms.sent(sha256),
            key_id=key_id,
            **recorded,
        )
        self._log.append(record.to_text())
        if self._log.unwritten:
            RECORDS_DELAYED.inc()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Import records as long as the block runs, and what is left at its end."""
        task = asyncio.create_task(self._work())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self._log.close()
            await asyncio.to_thread(self._import)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        next_removal = loop.time()
        while True:
            await asyncio.sleep(_IMPORT_S)
            self._log.write()
            await asyncio.to_thread(self._import)
            if loop.time() >= next_removal:
                next_removal = loop.time() + _RETENTION_S
                await asyncio.to_thread(self._remove_old)

    def _import(self) -> None:
        """Import what is there; what cannot be imported now stays in the log."""
        try:
            self._importer.import_all()
        except (SQLAlchemyError, OSError, LesionError) as error:
            logger.warning("records wait in the log: %s", str(error).splitlines()[0])

    def _remove_old(self) -> None:
        days = self._settings.keep_days
        if days is None:
            return
        try:
            with self._storage.session() as session:
                removed = remove_before(session, self._key, now() - timedelta(days=days))
        except SQLAlchemyError as error:
            logger.warning("old records could not be removed: %s", str(error).splitlines()[0])
            return
        if removed:
            logger.info("%d records older than %g days were removed", removed, days)
