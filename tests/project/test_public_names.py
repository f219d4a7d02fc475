"""The names that ``lesion`` offers: each one resolves, its example runs, and importing the package loads no torch."""

import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import lesion
from tests.support.training_runs import RunFolder

NAMES = sorted(set(lesion.__all__) - {"__version__"})


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_what_its_module_defines(name: str) -> None:
    value = getattr(lesion, name)
    assert value.__name__ == name
    assert value.__module__ == lesion._MODULES[name]
    assert inspect.getdoc(value)
    assert name in dir(lesion)


def test_there_are_no_other_names() -> None:
    assert set(lesion._MODULES) == set(NAMES)
    with pytest.raises(AttributeError, match="no attribute 'Bundel'"):
        _ = lesion.Bundel


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, lesion, lesion.cli.main; heavy = {'torch', 'openvino', 'numpy', 'hydra'}; "
        "print(lesion.__version__, sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{lesion.__version__} []\n"


@pytest.mark.slow
def test_the_examples_run(run_folder: RunFolder) -> None:
    manifest = run_folder.manifest
    names = {"bundle_path": run_folder.bundle_path, "image_path": Path(manifest.root) / manifest.table["path"].iloc[0]}
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    with_examples = set()
    for name in ["lesion", *NAMES]:
        value = lesion if name == "lesion" else getattr(lesion, name)
        scope = vars(inspect.getmodule(value)) | names | {name: value}
        for test in finder.find(value, name, module=inspect.getmodule(value), globs=scope):
            with_examples |= {name} if test.examples else set()
            runner.run(test)
    assert runner.summarize().failed == 0
    assert {"lesion", "Bundle", "Predictor", "evaluate"} <= with_examples
