"""Values of settings on a command line: what a user's shell leaves of them is what the config holds."""

from pathlib import Path

import pytest
from omegaconf import DictConfig

from lesion.core.commands import quote_texts
from tests.support.training_runs import compose_config

TEXTS = [
    r"(patient\d+)", "2024", "2024_01_15", "1e3", "2024-01-15", "12:30", "true", "nan", ".5", "0x10",
    "a=b", "a,b", "[a]", "(a", "x{y", "it's", 'say "a"', "a#b", "a b ", "Läsion", "脑", "a\\b", "a&b", "100%",
    "a@b", "a;b", "a\\", "a\\'b", "\\\\share\\a", "/data/a=b,[c] d",
]  # fmt: skip


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small config: composing that of a training takes a tenth of a second."""
    folder = tmp_path_factory.mktemp("configs")
    (folder / "small.yaml").write_text("data: {root: null, group_pattern: null}\nname: null\npaths: {output: null}\n")
    return folder


def compose(folder: Path, *arguments: str) -> DictConfig:
    return compose_config(folder, *quote_texts(arguments))


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_taken_as_it_is(text: str, configs: Path, tmp_path: Path) -> None:
    arguments = [f"data.root={text}", f"name={text}", f"data.group_pattern={text}", f"+resume={text}"]
    cfg = compose_config(tmp_path, *quote_texts(arguments), config_name="small", configs=configs)
    assert [cfg.data.root, cfg.name, cfg.data.group_pattern, cfg.resume] == [text] * 4


def test_what_hydra_understands_stays(tmp_path: Path) -> None:
    cfg = compose(
        tmp_path, "data.root='quoted 1'", "data.group_pattern=null", "name=${data.root}", "model.lr=1e-3",
        "data.csv={csv: train.csv, images: images}", "data.fractions.val=0.1",
    )  # fmt: skip
    assert (cfg.data.root, cfg.data.group_pattern, cfg.name, cfg.model.lr) == ("quoted 1", None, "quoted 1", 1e-3)
    assert (cfg.data.csv.images, cfg.data.fractions.val) == ("images", 0.1)


def test_a_mapping_may_stand_for_a_folder(tmp_path: Path) -> None:
    cfg = compose(tmp_path, "data.root={_target_: lesion.phantom.folder.generate, root: x}")
    assert cfg.data.root.root == "x"


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    cfg = compose(tmp_path, "data.root=~/scans", "name=a~b", "paths.outputs=~")
    assert (cfg.data.root, cfg.name, cfg.paths.outputs) == ("/somewhere/scans", "a~b", "/somewhere")


def test_a_sweep_over_texts_stays_a_sweep() -> None:
    sweep = ["-m", "data.root=a,b", "name=2024"]
    assert quote_texts(sweep) == ["-m", "data.root=a,b", "name='2024'"]
    assert quote_texts(sweep[1:]) == ["data.root='a,b'", "name='2024'"]


def test_other_arguments_are_not_touched() -> None:
    arguments = [
        "parent=123",
        "--config-dir",
        "a=b",
        "~data.csv",
        "trainer.max_epochs=5",
        "model.lr=1e-3,3e-3",
        "optimizer=(",
        "data",
    ]
    assert quote_texts(arguments) == arguments
