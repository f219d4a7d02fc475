"""A training that is set up wrongly says so in one line, before it starts."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lesion.core.errors import ConfigError, LesionError
from lesion.data.datamodule import DataModule
from lesion.training import setup_checks
from lesion.training.run import train
from lesion.training.setup_checks import check_batches, check_config, create_loggers
from tests.support.images.pictures import write_classes
from tests.support.training_runs import compose_config

SMALL: dict[str, Any] = {"size": 32, "num_workers": 0}


def config(*overrides: str) -> DictConfig:
    return compose_config(Path("/nowhere/run"), "data.root=/nowhere", "trainer.accelerator=cpu", *overrides)


@cache
def defaults() -> DictConfig:
    return config()


def with_setting(override: str) -> DictConfig:
    """The default config with one setting changed; to compose a config for each takes a tenth of a second."""
    [setting] = OverridesParser.create().parse_overrides([override])
    changed = deepcopy(defaults())
    OmegaConf.update(changed, setting.key_or_group, setting.value())
    return changed


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "callbacks.checkpoint.monitor=val/f1",
            "callbacks.checkpoint.monitor=val/f1: no such metric is logged. Did you",
        ),
        ("callbacks.early_stopping.monitor=val_loss", "Did you mean val/loss? Known: train/loss, val/loss, val/acc"),
        ("callbacks.early_stopping.monitor=test/acc", "Known: train/loss, val/loss, val/acc, val/f1_macro"),
        (
            "callbacks.checkpoint.monitor=val/acc",
            "val/acc is better when it is higher, but callbacks.checkpoint.mode=min",
        ),
        ("callbacks.early_stopping.mode=max", "set callbacks.early_stopping.mode=min"),
        ("optimized_metric=val/f1_makro", "optimized_metric=val/f1_makro does not exist. Did you mean val/f1_macro?"),
        ("optimized_metric=f1_macro", "optimized_metric=f1_macro does not exist"),
        ("interpolation_steps=1", "interpolation_steps=1 must be null or a whole number, 2 or more"),
        ("interpolation_steps=0.5", "interpolation_steps=0.5 must be null or a whole number"),
        ("interpolation_steps=true", "interpolation_steps=True must be null or a whole number"),
        ("trainer.max_epochs=0", "trainer.max_epochs=0 must be a whole number, 1 or more"),
        ("trainer.max_epochs=-1", "trainer.max_epochs=-1 must be a whole number, 1 or more"),
        ("trainer.max_epochs=2.5", "trainer.max_epochs=2.5 must be a whole number"),
        ("trainer.log_every_n_steps=0", "trainer.log_every_n_steps=0 must be a whole number, 1 or more"),
        ("evaluation.folder_split_epochs=0", "evaluation.folder_split_epochs=0 must be a whole number, 1 or more"),
        ("model.lr=0", "model.lr=0 must be a number above 0, such as 1e-3"),
        ("model.lr=-1e-3", "model.lr=-0.001 must be a number above 0"),
        ("model.lr=nan", "model.lr=nan must be a number above 0"),
        ("model.lr=fast", "model.lr=fast must be a number above 0"),
        ("model.weight_decay=-0.1", "model.weight_decay=-0.1 must be a number of 0 or more"),
        ("model.scheduler_warmup=1.5", "model.scheduler_warmup=1.5 must be a number from 0 to below 1"),
        (
            "model.mean=[123.7,116.3,103.5]",
            "model.mean=[123.7, 116.3, 103.5] must be three numbers",
        ),
        ("model.std=[58.4,57.1,57.4]", "of pixels from 0 to 1. Divide them by 255."),
        ("model.mean=[0.5]", "Leave it out for the backbone's own."),
        ("model.optimizer=adamm", "model.optimizer=adamm cannot be used"),
        ("model.backbone=mobilnetv2_100", "Similar names: mobilenetv2_100"),
        ("model.backbone=ResNet18", "Similar names: resnet18"),
        ("model.backbone=18", "model.backbone=18: timm has no model '18'"),
        ("model.backbone=resnet18.foo_in1k", "timm has no weights 'foo_in1k' of resnet18. It has: "),
        ("trainer.devices=999", "trainer.devices=999 processes are more than the"),
        ("trainer.devices=0", "trainer.devices=0: on a CPU this is the number of processes"),
    ],
)
def test_a_wrong_setting_is_refused_before_the_data_are_read(override: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_config(with_setting(override))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("callbacks.checkpoint.monitor=val/f1_macro", "callbacks.checkpoint.mode=max"),
        ("callbacks.early_stopping=null", "callbacks.checkpoint.monitor=train/loss"),
        ("optimized_metric=val/f1/class 1",),
        ("optimized_metric=test/ece", "logger=none"),
        ("interpolation_steps=10", "optimized_metric=val/nll"),
        ("+callbacks.mine={_target_: mine.Callback, monitor: val/mine}", "callbacks.checkpoint.monitor=val/mine"),
        ("experiment=phantom_mri",),
        ("experiment=brain_tumor_mri", "trainer=cpu"),
        ("experiment=cassava", "model.backbone=resnet18.a1_in1k", "trainer.devices=auto"),
    ],
)
def test_what_works_is_accepted(overrides: tuple[str, ...]) -> None:
    check_config(config(*overrides))


def test_weights_are_not_chosen_on_test_images() -> None:
    with pytest.raises(ConfigError, match=r"by optimized_metric=test/acc, which must then be a metric of the valid"):
        check_config(config("interpolation_steps=10", "optimized_metric=test/acc"))


def test_a_sweep_of_trainings_in_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sweep:
        initialized = staticmethod(lambda: True)
        get = staticmethod(lambda: type("Hydra", (), {"mode": RunMode.MULTIRUN}))

    monkeypatch.setattr(setup_checks, "HydraConfig", Sweep)
    monkeypatch.setattr(setup_checks, "process_count", lambda trainer: 2)
    with pytest.raises(ConfigError, match=r"A sweep \(-m\) trains its runs one after another"):
        check_config(config())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ("logger=csv", "+logger.board={_target_: lightning.pytorch.loggers.MLFlowLogger}"),
            "logger.board needs the package mlflow, which is not installed: pip install mlflow.",
        ),
        (
            ("logger=csv", "+logger.board={_target_: lightning.pytorch.loggers.TensorBoardLogger, save_dir: x}"),
            "logger.board needs the package tensorboard, which is not installed: pip install tensorboard.",
        ),
        (
            ("logger=default",),
            "logger.wandb needs the package wandb, which is not installed: pip install 'lesion[train]'",
        ),
    ],
)
def test_a_logger_without_its_package_tells_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, overrides: tuple[str, ...], words: str
) -> None:
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    cfg = compose_config(tmp_path, "data.root=/nowhere", "name=x", *overrides)
    with pytest.raises(ConfigError) as refused:
        create_loggers(cfg)
    assert words in str(refused.value)
    assert str(refused.value).endswith("logger=csv or logger=none.")


@pytest.mark.parametrize("overrides", [("logger=none",), ("~logger",), ("logger=csv", "logger.csv=null")])
def test_no_logger_is_accepted(overrides: tuple[str, ...]) -> None:
    assert create_loggers(config(*overrides)) == []


def test_wandb_gets_no_setting_that_it_only_warns_about(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    [csv, wandb] = create_loggers(compose_config(tmp_path, "data.root=/nowhere", "logger=default"))
    assert type(csv).__name__ == "CSVLogger"
    assert "anonymous" not in wandb._wandb_init  # type: ignore[attr-defined]
    assert "anonymous" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("counts", "options", "words"),
    [
        ({"a": 20, "b": 20}, {"batch_size": 0}, "data.batch_size=0 must be a whole number of images, at least 2"),
        ({"a": 20, "b": 20}, {"batch_size": 1}, "data.batch_size=1 must be a whole number of images, at least 2"),
        ({"a": 20, "b": 20}, {"batch_size": 2.5}, "data.batch_size=2.5 must be a whole number of images"),
        ({"a": 20, "b": 20, "c": 1}, {}, "would get no image of 1 of 3 classes (c)"),
        ({"a": 20}, {}, "a"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused(
    tmp_path: Path, counts: dict[str, int], options: dict[str, Any], words: str
) -> None:
    write_classes(tmp_path, counts)
    with pytest.raises(LesionError) as refused:
        DataModule("x", tmp_path, **(SMALL | options))
    assert words in str(refused.value)


@pytest.mark.parametrize(("corrupt", "words"), [("*.png", "None of the 24 images"), ("b/*.png", "No image of 1 class")])
def test_images_that_are_all_corrupt_are_refused(tmp_path: Path, corrupt: str, words: str) -> None:
    for path in write_classes(tmp_path, {"a": 12, "b": 12}).rglob(corrupt):
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(LesionError, match=words):
        DataModule("x", tmp_path, **SMALL)


def test_a_batch_larger_than_the_data_is_one_batch_of_all(tmp_path: Path) -> None:
    data = DataModule("x", write_classes(tmp_path, {"a": 20, "b": 20}), **(SMALL | {"batch_size": 500}))
    images = len(data.dataset("train"))
    assert [len(labels) for _, labels in data.train_dataloader()] == [images]
    assert data.train_batches() == 1
    check_batches(data, images // 2)
    with pytest.raises(ConfigError, match=f"2 or more for each of {images} processes"):
        check_batches(data, images)


@pytest.mark.slow
def test_a_run_without_a_logger_leaves_everything_else(
    tiny_config: Callable[..., DictConfig], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    _, objects = train(tiny_config(tmp_path, "logger=none", "trainer.max_epochs=1", "trainer.log_every_n_steps=10"))
    assert objects["bundle"].version
    assert (tmp_path / "report.html").is_file()
    assert not (tmp_path / "csv").exists()
    assert not [str(each.message) for each in recwarn if "logging interval" in str(each.message)]
    assert objects["trainer"].log_every_n_steps <= objects["trainer"].num_training_batches
