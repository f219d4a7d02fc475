"""A training's last checkpoint in the object store, so that a worker on another disk goes on from it."""

import logging
import shutil
from pathlib import Path

from lesion.database.object_store import ObjectStore, StoreError

logger = logging.getLogger(__name__)

FILES = ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "progress.json")  # all that goes on with a run


class Checkpoints:
    """The checkpoints of one job's training; they stay on the disk where the store itself is on this machine.

    Each epoch has names of its own: what is in the store never changes. What is kept as an epoch's may be of the epoch
    before, when it was read just before the next was written; then that epoch is trained again.

    Args:
        store: Where they are kept.
        job_id: The job.
        run: The folder of its training on this disk.
    """

    def __init__(self, store: ObjectStore, job_id: str, run: Path) -> None:
        self._store = store
        self._prefix = f"jobs/{job_id}"
        self._run = run
        self._kept = 0

    def keep(self, epoch: int) -> None:
        """Put the last checkpoint into the store, in place of the one before; trouble with the store only means less.

        Args:
            epoch: How many epochs are done.
        """
        if self._store.local or epoch <= self._kept or not all((self._run / name).is_file() for name in FILES):
            return
        try:
            self._store.put_folder(f"{self._prefix}/{epoch}", self._run, FILES)
            if self._kept:
                self._store.delete_folder(f"{self._prefix}/{self._kept}")
            self._kept = epoch
        except StoreError as error:
            logger.warning("the checkpoint of epoch %d is not kept: %s", epoch, error.message)

    def fetch(self, epoch: int) -> None:
        """Bring the newest checkpoint here, in place of what this disk has of the run; there may be none.

        Args:
            epoch: How many epochs are known to be done.

        Raises:
            StoreError: The store does not answer.
        """
        if self._store.local:
            return
        shutil.rmtree(self._run, ignore_errors=True)
        for number in range(epoch, 0, -1):
            try:
                self._store.fetch_folder(f"{self._prefix}/{number}", FILES, self._run)
            except StoreError as error:
                if error.code != "file_gone":
                    raise
            else:
                self._kept = number
                return

    def delete(self) -> None:
        """Remove all of them from the store, when the job is over."""
        if self._store.local:
            return
        try:
            self._store.delete_folder(self._prefix)
        except StoreError as error:
            logger.warning("the checkpoints of a job that is over stay in the store: %s", error.message)
