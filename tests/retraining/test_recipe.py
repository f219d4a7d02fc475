"""A champion that version 0.1.0 trained can be retrained: the names in its config still exist and take their values."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.utils import get_object

from lesion.model.bundle import Bundle
from lesion.retraining.jobs import RetrainRequest
from lesion.retraining.recipe import RunPaths, recipe
from tests.support.bundles.registry_bundles import sealed

_CALLBACKS = "lightning.pytorch.callbacks"
OLD_CONFIG: dict[str, Any] = {  # as version 0.1.0 composed experiment=phantom_mri callbacks=ema trainer.precision=…
    "name": "phantom_mri",
    "seed": 0,
    "resume": None,
    "parent": None,
    "optimized_metric": "val/f1_macro",
    "paths": {"data": "data", "outputs": "outputs", "cache": "data/.cache", "output": "/old/run"},
    "data": {
        "_target_": "lesion.data.datamodule.DataModule",
        "name": "phantom_mri",
        "root": {"_target_": "lesion.data.phantom.generate", "root": "data/phantom_mri", "patients": 240, "seed": 0},
        "manifest": None,
        "csv": None,
        "group_pattern": "(patient\\d+)",
        "split": "grouped",
        "fractions": {"train": 0.7, "val": 0.075, "calibration": 0.075, "test": 0.15},
        "split_seed": 0,
        "size": 96,
        "fit": "pad",
        "interpolation": "bicubic",
        "trim": False,
        "batch_size": 16,
        "balanced": False,
        "num_workers": None,
        "cache_dir": "data/.cache",
        "seed": 0,
        "augmentation": {
            "_target_": "lesion.data.transforms.augmentation",
            "horizontal_flip": 0.5,
            "rotation": 10,
            "translation": 0.05,
            "scale": [0.9, 1.1],
            "brightness": 0.15,
            "contrast": 0.15,
        },
    },
    "model": {
        "_target_": "lesion.model.classifier.ImageClassifier",
        "backbone": "mobilenetv2_100",
        "weights": "none",
        "pad_type": None,
        "drop_rate": 0.0,
        "optimizer": "sgd",
        "lr": 0.04,
        "backbone_lr_factor": 1.0,
        "weight_decay": 0.0005,
        "scheduler": "cosine",
        "scheduler_warmup": 0.1,
        "label_smoothing": 0.05,
        "class_weights": None,
        "mixup": 0.0,
        "cutmix": 0.0,
        "seed": 0,
    },
    "finetune": {
        "_target_": "lesion.model.finetune.FineTuning",
        "warmup_epochs": 0,
        "unfreeze_last": -1,
        "freeze_batch_norm": False,
    },
    "trainer": {
        "_target_": "lightning.pytorch.Trainer",
        "accelerator": "auto",
        "max_epochs": 18,
        "precision": {"_target_": "lesion.training.hardware.best_precision"},
        "default_root_dir": "/old/run",
    },
    "callbacks": {
        "checkpoint": {"_target_": f"{_CALLBACKS}.ModelCheckpoint", "dirpath": "/old/run/checkpoints"},
        "early_stopping": {"_target_": f"{_CALLBACKS}.EarlyStopping", "monitor": "val/loss", "patience": 18},
        "throughput": {"_target_": "lesion.training.progress.Throughput"},
        "progress": {"_target_": "lesion.training.progress.ProgressBar"},
        "progress_file": {"_target_": "lesion.training.progress.ProgressFile", "path": "/old/run/progress.json"},
        "ema": {"_target_": f"{_CALLBACKS}.EMAWeightAveraging", "decay": 0.99, "use_buffers": True},
    },
    "logger": {"csv": {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "/old/run"}},
    "explain": {"methods": ["gradcam", "gradcam++"], "road_images": 16, "errors": 12, "examples": 2},
    "evaluation": {"replicates": 1000, "folder_split": False, "folder_split_epochs": None},
}


def targets(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "_target_" in value:
            yield value
        for item in value.values():
            yield from targets(item)


def test_a_champion_of_version_0_1_0_can_be_retrained(tmp_path: Path) -> None:
    champion = Bundle.open(sealed(tmp_path / "champion", config=OLD_CONFIG))
    paths = RunPaths(tmp_path / "manifest.parquet", tmp_path / "images", tmp_path / "run", tmp_path / "cache")
    config = recipe(champion, RetrainRequest(), paths, {}, {"replicates": 500})
    assert config["model"]["lr"] == 0.01
    assert config["callbacks"]["checkpoint"]["dirpath"] == str(tmp_path / "run" / "checkpoints")
    names = [node["_target_"] for node in targets(config)]
    assert {"lesion.training.hardware.best_precision", "lesion.training.progress.Throughput"} <= set(names)
    assert len(names) == 12
    assert config["interpolation_steps"] is None
    assert recipe(champion, RetrainRequest(), paths, {}, {}, 10)["interpolation_steps"] == 10
    for node in targets(config):
        arguments = {name: value for name, value in node.items() if not name.startswith("_")}
        classes = {"classes": ["a", "b"]} if node["_target_"].endswith("ImageClassifier") else {}
        inspect.signature(get_object(node["_target_"])).bind(**arguments, **classes)
