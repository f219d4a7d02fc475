"""A training's last checkpoint in the object store, so that a worker on another machine can continue from it."""

import logging
import shutil
from pathlib import Path

from lesion.database.object_store import ObjectNotFoundError, ObjectStore, StoreError

logger = logging.getLogger(__name__)

FILES = ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "progress.json")  # all that a run needs to continue


class Checkpoints:
    """The checkpoints of one job's training; nothing is stored where the store itself is on this machine's disk.

    Every epoch has its own keys, since files in the store never change. The files under an epoch's keys may be those of
    the epoch before, when they were read just before the next ones were written; then that epoch is trained again.
    ``run`` is the folder of the training on this machine.
    """

    def __init__(self, store: ObjectStore, job_id: str, run: Path) -> None:
        self._store = store
        self._prefix = f"jobs/{job_id}"
        self._run = run
        self._stored_epoch = 0

    def save(self, epoch: int) -> None:
        """Store the checkpoint of an epoch in place of the one before; an error of the store is only logged."""
        if self._store.local or epoch <= self._stored_epoch or not all((self._run / name).is_file() for name in FILES):
            return
        try:
            self._store.put_folder(f"{self._prefix}/{epoch}", self._run, FILES)
            if self._stored_epoch:
                self._store.delete_folder(f"{self._prefix}/{self._stored_epoch}")
            self._stored_epoch = epoch
        except StoreError as error:
            logger.warning("the checkpoint of epoch %d is not stored: %s", epoch, error.message)

    def fetch(self, epoch: int) -> None:
        """Bring the newest checkpoint, of at most ``epoch`` epochs, to this machine, in place of its own."""
        if self._store.local:
            return
        shutil.rmtree(self._run, ignore_errors=True)
        for number in range(epoch, 0, -1):
            try:
                self._store.fetch_folder(f"{self._prefix}/{number}", FILES, self._run)
            except ObjectNotFoundError:
                continue
            self._stored_epoch = number
            return

    def delete(self) -> None:
        """Remove all of them from the store, when the job is over."""
        if self._store.local:
            return
        try:
            self._store.delete_folder(self._prefix)
        except StoreError as error:
            logger.warning("the checkpoints of a job that is over stay in the store: %s", error.message)
