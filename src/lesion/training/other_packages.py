"""Which lines of other packages a training shows: those that a user can act on."""

import logging
import warnings
from typing import Any

# The message's beginning, the category and the module of warnings that have no consequence here.
_WITHOUT_CONSEQUENCE = (
    # Lightning uses a deprecated function of torch, once per worker.
    (r".*isinstance.treespec, LeafSpec.*", Warning, ""),
)
# Importing Lightning sets these to INFO, whatever the run's logging config said.
_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric", "onnxscript", "onnx_ir", "httpx")


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
