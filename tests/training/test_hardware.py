"""What training takes of a machine."""

import pytest
import torch

from lesion.training import hardware


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_torch_uses_the_cores_that_a_container_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(hardware, "available_cores", lambda: 2)
    torch.set_num_threads(8)
    assert hardware.bound_threads() == torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert hardware.bound_threads() == 1  # fewer stay fewer


def test_what_the_environment_says_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(hardware, "available_cores", lambda: 2)
    torch.set_num_threads(3)
    assert hardware.bound_threads() == 3
