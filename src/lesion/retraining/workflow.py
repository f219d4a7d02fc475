"""The durable order of a retraining's stages, on DBOS: a stage that is done stays done, even if its worker dies."""

import logging
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSPortableJSONSerializer, SetWorkflowID, StepOptions, WorkflowStatus
from sqlalchemy.exc import DBAPIError

from lesion.core.errors import LesionError
from lesion.database.object_store import ObjectNotFoundError, StoreError
from lesion.database.storage import Storage
from lesion.retraining.leases import JobCancelledError, claim
from lesion.retraining.stages import Stages

logger = logging.getLogger(__name__)

NAME = "retrain"  # of the workflow and of its queue
ORDER = "1"  # increase it when the stages or their results change: jobs that are running then end as failed
_ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")


class Workflows:
    """Retrainings as DBOS workflows; a process can have only one instance.

    DBOS records, next to the catalogue, which stages of a job are done. Its values are JSON.
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
        """Create DBOS's tables if need be, and start to run jobs."""
        DBOS.launch()
        DBOS.register_queue(NAME, global_concurrency=1)

    def close(self) -> None:
        """Run no more jobs."""
        DBOS.destroy(destroy_registry=True)

    def enqueue(self, job_id: str) -> None:
        """Enqueue a job; it runs once, however often this is called."""
        with SetWorkflowID(job_id):
            DBOS.enqueue_workflow(NAME, self._workflow, job_id)

    def has_ended(self, job_id: str) -> bool | None:
        """Return whether a job's workflow has ended; None if it was never enqueued."""
        status = DBOS.get_workflow_status(job_id)
        return None if status is None else status.status in _ENDED

    def orphans(self, alive: Set[str]) -> list[str]:
        """Return the jobs whose worker is not alive."""
        pending: list[WorkflowStatus] = DBOS.list_workflows(
            name=NAME, status=["PENDING"], load_input=False, load_output=False
        )
        return [status.workflow_id for status in pending if status.executor_id not in alive]

    def resume(self, job_id: str) -> None:
        """Continue an orphan at the stage where it was."""
        DBOS.resume_workflow(job_id, queue_name=NAME)

    def _retrain(self, job_id: str) -> str:
        """Run a job; return its last state.

        ``LeaseLost`` passes through, and DBOS then records nothing: the job continues elsewhere.
        """
        stages = self._stages.execution()
        if claim(stages.storage, job_id, stages.worker) is None:
            return "over"
        self.running.add(job_id)
        try:
            start = _step("begin", stages.begin, job_id)
            snapshot = _step("snapshot", stages.snapshot, job_id)
            version = _step("train", stages.train, job_id, start["parent"], snapshot)
            outcome = _step("compare", stages.compare, job_id, start["parent"], version)
            return str(_step("conclude", stages.conclude, job_id, start["deployment"], version, **outcome))
        except Exception as error:
            return stages.fail(job_id, _lesion_error(job_id, error))
        finally:
            self.running.discard(job_id)


def system_database(storage: Storage) -> str:
    """Return where DBOS has its tables: in a schema of a PostgreSQL database, or in a file next to an SQLite one."""
    url = storage.url
    if url.get_backend_name() == "sqlite":
        url = url.set(database=str(Path(str(url.database)).with_name("workflows.db")))
    return url.render_as_string(hide_password=False)


def _step(name: str, stage: Callable[..., Any], *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - JSON
    retries = StepOptions(retries_allowed=True, max_attempts=4, interval_seconds=2.0, backoff_rate=2.0)
    options = StepOptions(name=name, should_retry=_is_temporary, **retries)
    return DBOS.run_step(options, stage, *arguments, **named)


def _is_temporary(error: BaseException) -> bool:
    """Return whether a second attempt may succeed: a database or store did not answer."""
    return isinstance(error, DBAPIError | StoreError) and not isinstance(error, ObjectNotFoundError)


def _lesion_error(job_id: str, error: Exception) -> LesionError:
    """Return what ended a job. DBOS replays an error from before a crash without its class, but with its code."""
    last = (getattr(error, "errors", None) or [error])[-1]  # the error of the last attempt
    if isinstance(last, LesionError):
        return last
    code = getattr(last, "code", None)
    if code == JobCancelledError.default_code:
        return JobCancelledError(str(last))
    if isinstance(code, str):
        return LesionError(str(last), code=code)
    logger.error("the retraining %s failed", job_id, exc_info=error)
    return LesionError(f"An unexpected error ended it ({type(last).__name__}): {str(last)[:1000]}")
