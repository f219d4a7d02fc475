"""Fine-tuning in two stages: first only the head, then also the last layers of the backbone."""

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lesion.core.errors import ConfigError
from lesion.model.network import Network


class FineTuning(Callback):
    """Keeps the backbone frozen for some epochs, then trains its last layers too.

    The stage depends only on the epoch, so a resumed run is in the right one. The batch statistics of frozen layers
    do not change.

    Args:
        warmup_epochs: Epochs in which only the head is trained.
        unfreeze_last: How many of the backbone's last layers are trained after that; a convolution, a normalization and
            an activation count as one layer each, as in Keras. -1 for all.
        freeze_batch_norm: Keep the running statistics of every batch normalization, of trained layers too.
    """

    def __init__(self, warmup_epochs: int = 1, unfreeze_last: int = 50, freeze_batch_norm: bool = False) -> None:
        super().__init__()
        if warmup_epochs < 0 or unfreeze_last < -1:
            raise ConfigError(
                f"finetune.warmup_epochs={warmup_epochs} must be 0 or more and finetune.unfreeze_last={unfreeze_last} "
                "0 or more, or -1 for all layers."
            )
        self.warmup_epochs = warmup_epochs
        self.unfreeze_last = unfreeze_last
        self.freeze_batch_norm = freeze_batch_norm

    @property
    def trains_all(self) -> bool:
        """Whether all layers are trained from the first epoch on."""
        return self.warmup_epochs == 0 and self.unfreeze_last == -1

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set which layers are trained in this epoch."""
        network = pl_module.network
        assert isinstance(network, Network)
        unfrozen = 0 if trainer.current_epoch < self.warmup_epochs else self.unfreeze_last
        set_trainable(network.backbone, unfrozen, self.freeze_batch_norm)


def set_trainable(backbone: nn.Module, last: int, freeze_batch_norm: bool = False) -> None:
    """Make the ``last`` layers (-1: all) of a backbone trainable and freeze the others with their batch statistics.

    ``freeze_batch_norm`` keeps the running statistics of every batch normalization.
    """
    ordered = layers(backbone)
    first = 0 if last == -1 else max(len(ordered) - last, 0)
    # Parameters outside any layer, such as position embeddings, are treated as the first layer.
    for parameter in backbone.parameters():
        parameter.requires_grad_(first == 0)
    for index, layer in enumerate(ordered):
        trainable = index >= first
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(trainable)
        if isinstance(layer, _BatchNorm):
            layer.train(trainable and not freeze_batch_norm)


def layers(backbone: nn.Module) -> list[nn.Module]:
    """Return a backbone's layers in order: modules with direct parameters or statistics, and activations."""
    return [module for module in backbone.modules() if _is_layer(module)]


def _is_layer(module: nn.Module) -> bool:
    has_parameters = next(module.parameters(recurse=False), None) is not None
    leaf = next(module.children(), None) is None
    return has_parameters or (leaf and type(module).__module__ == "torch.nn.modules.activation")
