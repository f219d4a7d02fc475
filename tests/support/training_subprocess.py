"""The config of a run and the stand-in for its training."""

from typing import Any

from tests.support.paths import REPOSITORY

STAND_IN = REPOSITORY / "tests" / "support" / "train_stand_in.py"


OLD = "/somewhere/old"


CONFIG: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "paths": {"output": OLD},
    "optimized_metric": "val/f1_macro",
    "data": {
        "_target_": "lesion.data.datamodule.DataModule",
        "root": {"_target_": "lesion.phantom.folder.generate", "root": "data"},
        "csv": {"csv": "train.csv"},
        "augmentation": {"_target_": "lesion.data.transforms.augmentation", "rotation": 10},
    },
    "model": {"_target_": "lesion.model.classifier.ImageClassifier", "lr": 1.0, "pad_type": None, "weights": "hub"},
    "finetune": {"_target_": "lesion.model.finetune.FineTuning", "warmup_epochs": 1, "unfreeze_last": 50},
    "trainer": {"_target_": "lightning.pytorch.Trainer", "max_epochs": 9, "default_root_dir": OLD, "devices": 4},
    "callbacks": {
        "checkpoint": {
            "_target_": "lightning.pytorch.callbacks.ModelCheckpoint",
            "dirpath": f"{OLD}/checkpoints",
            "filename": "best",
        },
        "progress": {"_target_": "lesion.training.progress.ProgressBar"},
    },
    "evaluation": {"replicates": 10, "folder_split": True, "gone": 1},
    "logger": {"wandb": {"_target_": "lightning.pytorch.loggers.WandbLogger"}},
}
