"""The notebook runs from its first cell to its last, on the phantoms."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.paths import REPOSITORY
from tests.support.training_runs import PHANTOMS, TINY

NOTEBOOK = REPOSITORY / "notebooks" / "brain_tumor_mri.ipynb"


def test_no_outputs_are_committed() -> None:
    for cell in nbformat.read(NOTEBOOK, 4).cells:
        assert not cell.get("outputs"), cell["id"]
        assert cell.get("execution_count") is None


@pytest.mark.slow
def test_notebook_runs_on_the_phantoms(data_dir: Path, run_folder: object, tmp_path: Path) -> None:
    """One parameter and the settings of the tiny run; the run's phantoms are used again."""
    notebook = nbformat.read(NOTEBOOK, 4)
    [parameters] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    overrides = [*PHANTOMS[1:], *TINY, f"paths.data={data_dir}", f"paths.output={tmp_path}"]
    parameters.source = f'experiment = "phantom_mri"\noverrides = {overrides!r}'
    NotebookClient(notebook, timeout=400, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    sentences = "".join(output["data"].get("text/markdown", "") for output in outputs if "data" in output)
    assert len(pictures) >= 8
    assert "The classes are balanced" in sentences
    assert "median brightness" in sentences
    assert (tmp_path / "bundle" / "bundle.json").is_file()
