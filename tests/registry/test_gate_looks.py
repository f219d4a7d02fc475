"""What is read back about earlier decisions of the gate, from rows written by hand."""

from pathlib import Path

from lesion.database.storage import Storage
from lesion.database.tables import Deployment, GateLook, Generation, Job, ModelVersion
from lesion.promotion.gate_levels import RecordedLook
from lesion.registry.gate_looks import best_versions, deciding_since, first_champion, recorded_looks
from tests.support.images.loop_images import new_storage


def decided(storage: Storage, number: int, generation: int, *, promoted: bool, improved: tuple[str, ...] = ()) -> None:
    """Write down a job, its model and its look, and its deployment if it was promoted."""
    identity, version = f"{number:032x}", f"{number:012x}"
    with storage.session() as session:
        state = "promoted" if promoted else "rejected"
        session.add(
            Job(id=identity, state=state, stage=state, metrics=[], request={}, requested_by="ann",
                verdict={"improved": list(improved)})
        )  # fmt: skip
        session.flush()
        session.add(ModelVersion(version=version, name="m", job_id=identity, facts={}, files=[]))
        session.add(GateLook(generation=generation, number=number, job_id=identity, alpha=number / 100))
        session.flush()
        if promoted:
            session.add(
                Deployment(follows=number, version=version, action="promote", actor="gate", reason="r", job_id=identity)
            )


def a_history(folder: Path) -> Storage:
    storage = new_storage(folder)
    with storage.session() as session:
        session.add_all(Generation(number=number, status="frozen") for number in (1, 2, 3))
        session.add(ModelVersion(version="f" * 12, name="m", facts={}, files=[]))
        session.flush()
        session.add(Deployment(follows=0, version="f" * 12, action="first", actor="ann", reason="r"))
    decided(storage, 1, 1, promoted=False, improved=("glioma",))
    decided(storage, 2, 1, promoted=True, improved=("glioma", "pituitary"))
    decided(storage, 3, 2, promoted=True, improved=("pituitary",))
    decided(storage, 4, 2, promoted=False)
    return storage


def test_looks_are_read_back_in_their_order(tmp_path: Path) -> None:
    with a_history(tmp_path / "loop").session() as session:
        assert recorded_looks(session) == [
            RecordedLook(1, 0.01),
            RecordedLook(1, 0.02, True),
            RecordedLook(2, 0.03, True),
            RecordedLook(2, 0.04),
        ]


def test_the_best_model_of_a_class_is_the_last_promoted_one_that_was_proved_better(tmp_path: Path) -> None:
    with a_history(tmp_path / "loop").session() as session:
        assert best_versions(session) == {"glioma": f"{2:012x}", "pituitary": f"{3:012x}"}
        assert first_champion(session) == "f" * 12


def test_without_any_decision_nothing_is_known(tmp_path: Path) -> None:
    with new_storage(tmp_path / "loop").session() as session:
        assert (recorded_looks(session), best_versions(session), first_champion(session)) == ([], {}, None)


def test_a_look_decides_on_the_generations_after_the_last_promotion() -> None:
    looks = [RecordedLook(1, 0.03), RecordedLook(2, 0.01, True), RecordedLook(3, 0.01)]
    assert deciding_since(looks, [1, 2, 3, 4]) == 3
    assert deciding_since(looks, [1, 2]) == 2  # the newest one, though a promotion was decided on it
    assert deciding_since(looks[:1], [1, 2]) == 1
