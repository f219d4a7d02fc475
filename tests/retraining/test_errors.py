"""Errors that end a job, or keep a worker from starting."""

from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from lesion.core.errors import ConfigError, LesionError
from lesion.promotion.gate_settings import GateSettings
from lesion.retraining.leases import JobCancelledError
from lesion.retraining.stages import RetrainSettings
from lesion.retraining.worker import WorkerProcess
from lesion.retraining.workflow import _lesion_error
from tests.support.images.loop_images import new_storage


class ReplayedError(Exception):
    """An error as DBOS replays it after a crash: its class is gone, its code and message are not."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@pytest.mark.parametrize(
    ("error", "kind", "code", "message"),
    [
        (JobCancelledError("ann cancelled it."), JobCancelledError, "job_cancelled", "ann cancelled it."),
        (ReplayedError("ann cancelled it.", "job_cancelled"), JobCancelledError, "job_cancelled", "ann cancelled it."),
        (ReplayedError("No images.", "gate_empty"), LesionError, "gate_empty", "No images."),
        (
            OperationalError("UPDATE x", {}, Exception("full")),
            LesionError,
            "database_unavailable",
            "Its database failed: (builtins.Exception) full",
        ),
        (KeyError("gone"), LesionError, "error", "An unexpected error ended it (KeyError): 'gone'"),
    ],
)
def test_what_ended_a_job_is_known_by_its_class(
    error: Exception, kind: type[LesionError], code: str, message: str
) -> None:
    ending = _lesion_error("job", error)
    assert (type(ending), ending.code, ending.message) == (kind, code, message)


def test_a_training_script_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    settings = RetrainSettings(script=tmp_path / "none.py")
    with pytest.raises(ConfigError, match=r"none\.py' does not exist"):
        WorkerProcess(new_storage(tmp_path), settings, GateSettings())
