"""What the page tells in a real browser of a retraining whose worker dies, and of a gate that cannot decide."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from playwright.sync_api import expect
from sqlalchemy import delete, select

from lesion.database.storage import Storage
from lesion.database.tables import AuditEntry, Job, Worker
from lesion.retraining.jobs import JobState, RetrainRequest, submit
from lesion.retraining.leases import WorkerHeartbeats, WorkerIdentity, claim, finish, record_progress
from lesion.retraining.worker_state import WORKER_LEFT
from scripts.dev.browsing import press
from tests.support.servers.browser import IN_A_BROWSER, OpenWindow, PageProcess, shows
from tests.support.servers.serving import ServerProcess

pytestmark = IN_A_BROWSER
DIED = datetime(2026, 11, 30, 2, 11, 5, tzinfo=UTC)
NOBODY = "No worker is running since 30 November 2026, 02:11 UTC; jobs wait until one is started."


@pytest.fixture
def storage(lamp_storage: Storage) -> Iterator[Storage]:
    """The storage of the server without a worker; jobs and workers of the test are taken away again."""
    with lamp_storage.session() as session:  # what workers of other tests left there
        session.execute(delete(AuditEntry).where(AuditEntry.action == WORKER_LEFT))
    yield lamp_storage
    with lamp_storage.session() as session:
        session.execute(delete(Job))
        session.execute(delete(Worker))


def die(storage: Storage, worker: str) -> None:
    with storage.session() as session:
        session.get_one(Worker, worker).seen_at = DIED


def test_a_worker_that_dies_in_a_retraining_is_told_and_the_retraining_can_be_cancelled(
    lamp_server: ServerProcess, storage: Storage, open_window: OpenWindow
) -> None:
    worker = WorkerHeartbeats(storage, WorkerIdentity("w1", "elsewhere", 1))
    worker.beat()
    with PageProcess(lamp_server.url) as served:
        page = open_window(served, "Upload & Retrain")
        expect(page.get_by_text("No worker is running")).to_have_count(0)
        press(page, "Start retraining")
        shows(page, "Waiting for a free worker")
        with storage.session() as session:
            job_id = session.scalars(select(Job.id).where(Job.active == 1)).one()
        claim(storage, job_id, "w1")
        record_progress(storage, job_id, "w1", stage="train", epoch=1, progress=0.3)
        shows(page, "Training: 1 of 5 epochs done")
        expect(page.get_by_text("No worker is running")).to_have_count(0)
        die(storage, "w1")
        shows(page, NOBODY)  # without a click
        admin = open_window(served, "Admin")
        shows(admin, NOBODY)
        press(page, "Cancel")
        press(page, "Cancel the retraining")
        shows(page, "The retraining was canceled; the model in use stays.")
        shows(page, NOBODY)  # next to the button that starts another one
        assert page.get_by_role("button", name="Start retraining").is_enabled()


def test_a_used_up_budget_of_the_gate_is_called_that(
    lamp_server: ServerProcess, storage: Storage, open_window: OpenWindow
) -> None:
    job_id = submit(storage, RetrainRequest(), "ann")[0].id
    claim(storage, job_id, "w1")
    reason = "Generation 1 of the gate set has decided 3 times, which spends its error budget."
    with PageProcess(lamp_server.url) as served:
        page = open_window(served, "Upload & Retrain")
        shows(page, "A retraining is running")
        finish(storage, job_id, "w1", JobState.BUDGET_SPENT, reason)
        shows(page, "The gate's budget is used up, so nothing was decided; the model in use stays.")
        shows(page, reason)
        admin = open_window(served, "Admin")
        shows(admin, "1 retraining: 1 budget spent.")
