"""Two faults of the matrix in the middle of a training; docs/faults.md has the whole table."""

import pytest

from scripts.bench.faults.fault_matrix import main


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("fault", ["kill", "full"])
def test_nothing_is_lost_and_the_training_goes_on(fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--only", fault, "--stages", "train"])
    if status == 2:
        pytest.skip("a small disk cannot be mounted here")
    assert status == 0, capsys.readouterr().out
