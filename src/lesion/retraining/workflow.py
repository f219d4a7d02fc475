"""The durable order of a retraining's stages, on DBOS: what is done stays done, wherever the rest is run."""

import logging
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSPortableJSONSerializer, SetWorkflowID, StepOptions, WorkflowStatus
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from lesion.core.errors import LesionError
from lesion.database.object_store import StoreError
from lesion.database.storage import Storage
from lesion.retraining.leases import claim
from lesion.retraining.stages import Stages

logger = logging.getLogger(__name__)

NAME = "retrain"  # of the workflow and of its queue
ORDER = "1"  # to be raised when the stages or their results change: jobs that are under way then end as failed
_OVER = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")


class Workflows:
    """Retrainings as DBOS workflows in this process, of which a process can have one.

    DBOS keeps, beside the catalogue, which stages of a job are done. Its values are JSON.

    Args:
        stages: What is to be done.
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self.running: set[str] = set()
        DBOS(
            config={
                "name": "lesion",
                "system_database_url": system_database(stages.storage),
                "executor_id": stages.worker,
                "application_version": ORDER,
                "serializer": DBOSPortableJSONSerializer(),
                "log_level": "WARNING",
                "enable_otlp": False,
            }
        )

        @DBOS.workflow(name=NAME)
        def workflow(job_id: str) -> str:
            return self._retrain(job_id)

        self._workflow = workflow

    def launch(self) -> None:
        """Make DBOS's tables if need be, and begin to take jobs."""
        DBOS.launch()
        DBOS.register_queue(NAME, global_concurrency=1)

    def close(self) -> None:
        """Take no more jobs."""
        DBOS.destroy(destroy_registry=True)

    def enqueue(self, job_id: str) -> None:
        """Have a job run, once, however often this is called."""
        with SetWorkflowID(job_id):
            DBOS.enqueue_workflow(NAME, self._workflow, job_id)

    def known(self, job_id: str) -> bool:
        """Whether a job was enqueued."""
        return DBOS.get_workflow_status(job_id) is not None

    def over(self, job_id: str) -> bool:
        """Whether a job's workflow has ended."""
        status = DBOS.get_workflow_status(job_id)
        return status is not None and status.status in _OVER

    def orphans(self, alive: Set[str]) -> list[str]:
        """Return the jobs whose worker is not alive."""
        pending: list[WorkflowStatus] = DBOS.list_workflows(
            name=NAME, status=["PENDING"], load_input=False, load_output=False
        )
        return [one.workflow_id for one in pending if one.executor_id not in alive]

    def resume(self, job_id: str) -> None:
        """Have an orphan run on, from the stage where it was."""
        DBOS.resume_workflow(job_id, queue_name=NAME)

    def _retrain(self, job_id: str) -> str:
        """Run a job; returns its last state.

        ``JobTaken`` passes through, and DBOS then writes nothing: the job goes on elsewhere.
        """
        stages = self._stages.execution()
        if claim(stages.storage, job_id, stages.worker) is None:
            return "over"
        self.running.add(job_id)
        try:
            begun = _step("begin", stages.begin, job_id)
            snapshot = _step("snapshot", stages.snapshot, job_id)
            version = _step("train", stages.train, job_id, begun["parent"], snapshot)
            outcome = _step("compare", stages.compare, job_id, begun["parent"], version)
            return str(
                _step("conclude", stages.conclude, job_id, begun["deployment"], version, **outcome),
            )
        except Exception as error:
            code, reason = _words(error)
            if code == "error":
                logger.exception("the retraining %s failed", job_id)
            return stages.fail(job_id, code, reason)
        finally:
            self.running.discard(job_id)


def system_database(storage: Storage) -> str:
    """Return where DBOS keeps its tables: in a schema of a PostgreSQL database, in a file beside an SQLite one."""
    url = make_url(storage.database)
    if url.get_backend_name() == "sqlite":
        url = url.set(database=str(Path(str(url.database)).with_name("workflows.db")))
    return url.render_as_string(hide_password=False)


def _step(name: str, stage: Callable[..., Any], *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - JSON
    options = StepOptions(
        name=name, retries_allowed=True, max_attempts=4, interval_seconds=2.0, backoff_rate=2.0, should_retry=_passing
    )
    return DBOS.run_step(options, stage, *arguments, **named)


def _passing(error: BaseException) -> bool:
    """Whether it is worth trying again: a database or store that did not answer."""
    return isinstance(error, DBAPIError) or (isinstance(error, StoreError) and error.code != "file_gone")


def _words(error: Exception) -> tuple[str, str]:
    """Return an error's code and sentence; one that DBOS remembers from before a crash is no LesionError any more."""
    last = (getattr(error, "errors", None) or [error])[-1]
    if isinstance(last, LesionError):
        return last.code, last.message
    code = getattr(last, "code", None)
    if isinstance(code, str):
        return code, str(last)
    return "error", f"An unexpected error ended it ({type(last).__name__}): {str(last)[:1000]}"
