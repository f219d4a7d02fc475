"""The durable order of a retraining's stages, on DBOS: a stage that is done stays done, even if its worker dies."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSPortableJSONSerializer, SetWorkflowID, StepOptions, WorkflowStatus
from sqlalchemy.exc import SQLAlchemyError

from lesion.core.errors import LesionError
from lesion.database.storage import Storage
from lesion.retraining.leases import JobCancelledError, claim
from lesion.retraining.patience import JobPaused, may_pass
from lesion.retraining.stages import Stages

logger = logging.getLogger(__name__)

NAME = "retrain"  # of the workflow and of its queue
ORDER = "1"  # increase it when the stages or their results change: jobs that are running then end as failed
_ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
_PAUSE_S = 2.0  # between two attempts of a job whose database or store failed


class Workflows:
    """Retrainings as DBOS workflows; a process can have only one instance.

    DBOS records, next to the catalogue, which stages of a job are done. Its values are JSON.
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self.running: set[str] = set()
        self._idle_since: dict[str, float] = {}  # by job: since when nothing here runs it
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

    def pending(self) -> dict[str, str | None]:
        """Return the jobs that are not over or waiting in the queue, each with its worker."""
        pending: list[WorkflowStatus] = DBOS.list_workflows(
            name=NAME, status=["PENDING"], load_input=False, load_output=False
        )
        return {status.workflow_id: status.executor_id for status in pending}

    def resume_idle(self, job_id: str) -> None:
        """Continue a job of this worker that nothing here runs: it was paused, or it could not be begun."""
        if job_id in self.running:
            self._idle_since.pop(job_id, None)
        elif time.monotonic() - self._idle_since.setdefault(job_id, time.monotonic()) >= _PAUSE_S:
            self.resume(job_id)
            del self._idle_since[job_id]

    def resume(self, job_id: str) -> None:
        """Continue a job that nobody runs at the stage where it was."""
        DBOS.resume_workflow(job_id, queue_name=NAME)

    def _retrain(self, job_id: str) -> str:
        """Run a job; return its last state.

        ``LeaseLost`` and ``JobPaused`` pass through, and DBOS then records nothing: the job continues later.
        """
        stages = self._stages.execution()
        self.running.add(job_id)
        try:
            if claim(stages.storage, job_id, stages.worker) is None:
                stages.remove_checkpoints(job_id)
                return "over"
            try:
                return self._run_stages(stages, job_id)
            except Exception as error:
                if stages.patience.allows_retry(job_id, error):
                    raise
                return stages.fail(job_id, _lesion_error(job_id, error))
        except Exception as error:
            if not may_pass(error):
                raise
            raise JobPaused(job_id) from error
        finally:
            self.running.discard(job_id)

    def _run_stages(self, stages: Stages, job_id: str) -> str:
        def step(name: str, stage: Callable[..., Any], *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - JSON
            return DBOS.run_step(StepOptions(name=name), stages.attempt, job_id, stage, *arguments, **named)

        start = step("begin", stages.begin)
        snapshot = step("snapshot", stages.snapshot)
        version = step("train", stages.train, start["parent"], snapshot)
        outcome = step("compare", stages.compare, start["parent"], version)
        return str(step("conclude", stages.conclude, start["deployment"], version, **outcome))


def system_database(storage: Storage) -> str:
    """Return where DBOS has its tables: in a schema of a PostgreSQL database, or in a file next to an SQLite one."""
    url = storage.url
    if url.get_backend_name() == "sqlite":
        url = url.set(database=str(Path(str(url.database)).with_name("workflows.db")))
    return url.render_as_string(hide_password=False)


def _lesion_error(job_id: str, error: Exception) -> LesionError:
    """Return what ended a job. DBOS replays an error from before a crash without its class, but with its code."""
    if isinstance(error, LesionError):
        return error
    if isinstance(error, SQLAlchemyError):
        logger.error("the retraining %s failed", job_id, exc_info=error)
        return LesionError(f"Its database failed: {str(error).splitlines()[0]}", code="database_unavailable")
    code = getattr(error, "code", None)
    if code == JobCancelledError.default_code:
        return JobCancelledError(str(error))
    if isinstance(code, str):
        return LesionError(str(error), code=code)
    logger.error("the retraining %s failed", job_id, exc_info=error)
    return LesionError(f"An unexpected error ended it ({type(error).__name__}): {str(error)[:1000]}")
