"""What a run logs besides its training metrics (config, figures, images, the bundle), and what it hides.

Lines of other packages that mean nothing to a user are hidden.
"""

import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from lesion.evaluation.evaluation import Evaluation, finite
from lesion.model.bundle import Bundle
from lesion.training.reporting import Explanations

# The message's beginning, the category and the module of warnings that have no consequence here.
_WITHOUT_CONSEQUENCE = (
    # Lightning uses a deprecated function of torch, once per worker.
    (r".*isinstance.treespec, LeafSpec.*", Warning, ""),
)
# Importing Lightning sets these to INFO, whatever the run's logging config said.
_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric", "onnxscript", "onnx_ir", "httpx")


def log_config(loggers: Sequence[Logger], cfg: DictConfig) -> None:
    """Log the whole resolved config to every logger."""
    settings = OmegaConf.to_container(cfg, resolve=True)
    for logger in loggers:
        logger.log_hyperparams(settings)  # type: ignore[arg-type]


def log_run(
    loggers: Sequence[Logger],
    metrics: Mapping[str, float],
    evaluation: Evaluation,
    explanations: Explanations,
    bundle: Bundle,
    report: Path,
) -> None:
    """Log a finished run to wandb, if it is one of the loggers."""
    runs = [logger.experiment for logger in loggers if isinstance(logger, WandbLogger)]
    if not runs:
        return
    import wandb

    examples = [*explanations.errors, *explanations.examples]
    for run in runs:
        run.log(
            {key: value for key, value in finite(dict(metrics)).items() if value is not None}
            | {
                "test/confusion_matrix": wandb.plot.confusion_matrix(
                    y_true=evaluation.labels.tolist(),
                    preds=evaluation.predictions.tolist(),
                    class_names=list(evaluation.classes),
                ),
                "test/heat_maps": [
                    wandb.Image(Image.fromarray(example.overlay), caption=f"{example.label} → {example.predicted}")
                    for example in examples
                    if example.overlay is not None
                ],
                "report": wandb.Html(io.StringIO(report.read_text("utf-8")), inject=False),
            }
        )
        artifact = wandb.Artifact(
            bundle.name, type="model", metadata={"version": bundle.version, "classes": list(bundle.classes)}
        )
        artifact.add_dir(str(bundle.path))
        run.log_artifact(artifact)
        run.finish()


def quiet_other_packages() -> None:
    """Hide lines of other packages that mean nothing to a user; their other warnings and all errors are shown."""
    for message, category, module in _WITHOUT_CONSEQUENCE:
        warnings.filterwarnings("ignore", message, category, module)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def quiet_wandb(logger: Any) -> None:  # noqa: ANN401 - any logger of Lightning's
    """Take a setting away that Lightning gives wandb and that wandb, which has it no more, only warns about."""
    settings = getattr(logger, "_wandb_init", {})
    if settings.get("anonymous", True) is None:
        del settings["anonymous"]
