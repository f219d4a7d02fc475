"""Which change plan is in force, and what retrainings state about it."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from lesion.cli.storage.models import main
from lesion.database.audit import PLAN_ADOPTED
from lesion.database.storage import Storage
from lesion.database.tables import AuditEntry
from lesion.model.bundle import Bundle
from lesion.promotion.change_plan import ChangePlan
from lesion.promotion.gate_settings import GateSettings
from lesion.registry.deployments import InvalidReasonError
from lesion.registry.plan_adoption import adopt, plan_in_force, state_plan
from lesion.registry.registry import Registry
from lesion.retraining.jobs import CHOICES
from tests.support.bundles.registry_bundles import sealed
from tests.support.training_subprocess import CONFIG


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    made = Storage(f"sqlite:///{tmp_path}/loop/lesion.db", f"{tmp_path}/loop/files", tmp_path / "loop" / "cache")
    made.upgrade()
    registry = Registry(made)
    registry.deploy_first(registry.register(sealed(tmp_path / "champion", config=CONFIG)), "ann", "the first")
    return made


def plan_of(tmp_path: Path, gate: GateSettings) -> ChangePlan:
    return ChangePlan.of(Bundle.open(tmp_path / "champion").facts, gate, CHOICES)


def adoptions(storage: Storage) -> list[AuditEntry]:
    with storage.session() as session:
        return list(session.scalars(select(AuditEntry).filter_by(action=PLAN_ADOPTED).order_by(AuditEntry.id)))


def test_the_first_comparison_puts_its_plan_into_force(storage: Storage, tmp_path: Path) -> None:
    first, second = (plan_of(tmp_path, GateSettings(margin=margin)) for margin in (0.0, 0.01))
    with storage.session() as session:
        assert plan_in_force(session) is None
        assert state_plan(session, first, "job 1").outside == ()
        assert state_plan(session, first, "job 1").outside == ()  # a job that runs again
        statement = state_plan(session, second, "job 2")
    assert statement.sha256 == first.sha256
    assert statement.outside == ("gate.margin is 0.01 and was planned to be 0.0",)
    [entry] = adoptions(storage)
    assert (entry.actor, entry.subject) == ("job 1", first.sha256)


def test_an_adopted_plan_is_in_force_until_the_next_one(storage: Storage, tmp_path: Path) -> None:
    first, second = (plan_of(tmp_path, GateSettings(margin=margin)) for margin in (0.0, 0.01))
    with storage.session() as session:
        state_plan(session, first, "job 1")
        adopt(session, second, "ann", " stricter ")
        assert plan_in_force(session) == second
        assert state_plan(session, second, "job 2").outside == ()
        assert state_plan(session, first, "job 3").outside != ()
    assert adoptions(storage)[-1].detail["reason"] == "stricter"
    with storage.session() as session, pytest.raises(InvalidReasonError, match="needs a reason"):
        adopt(session, first, "ann", " ")


class TestCommand:
    @pytest.fixture
    def plan(self, storage: Storage, capsys: pytest.CaptureFixture[str]) -> Any:
        places = (f"{name}='{getattr(storage, name)}'" for name in ("database", "files", "cache"))
        settings = [f"storage.{place}" for place in places]

        def run(*words: str) -> str:
            assert main([*words, *settings]) == 0
            return capsys.readouterr().out

        return run

    def test_it_writes_the_plan_of_the_settings(self, plan: Any) -> None:
        document = plan("plan", "gate.recall_drop=0.07")
        assert "against the model in use and the best model so far | 0.07 |" in document
        assert document.rstrip().endswith("The first comparison by the gate puts its own into force; so does --adopt.")
        assert plan("plan", "gate.recall_drop=0.07") == document

    def test_a_person_adopts_a_plan(self, plan: Any, storage: Storage) -> None:
        status = json.loads(plan("--json", "plan", "--adopt", "--reason", "as decided", "gate.margin=0.01"))
        assert status["in_force"] == status["sha256"]
        [entry] = adoptions(storage)
        assert entry.actor.startswith("cli:")
        assert entry.detail == {"plan": status["plan"], "reason": "as decided"}
        assert "This plan is in force." in plan("plan", "gate.margin=0.01")
        assert "- gate.margin is 0.0 and was planned to be 0.01" in plan("plan")
        other = json.loads(plan("--json", "plan", "retrain.interpolation_steps=10"))
        assert "recipe.interpolation_steps is 10 and was planned to be not set" in other["differences"]

    def test_an_adoption_needs_a_reason(self, plan: Any, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            plan("plan", "--adopt")
        assert (
            "error (reason_missing): A change of champion or of the change plan needs a reason"
            in capsys.readouterr().err
        )
