"""Lesion: from a folder of labeled images to an explained, calibrated and served diagnosis model.

The public names are loaded when they are first used: a server that has no torch installed can import this package.

Examples:
    >>> from lesion import Predictor
    >>> [prediction] = Predictor.load(bundle_path).predict([image_path.read_bytes()])
    >>> 0 < prediction.confidence <= 1
    True
"""

from importlib import import_module
from typing import TYPE_CHECKING

from lesion.core.version import __version__

if TYPE_CHECKING:
    from lesion.client import Client
    from lesion.data.datamodule import DataModule
    from lesion.data.manifest import Manifest
    from lesion.model.bundle import Bundle
    from lesion.model.bundle_evaluation import evaluate
    from lesion.model.classifier import ImageClassifier
    from lesion.model.predictor import Prediction, Predictor
    from lesion.registry.registry import Registry
    from lesion.training.run import train

__all__ = [
    "Bundle",
    "Client",
    "DataModule",
    "ImageClassifier",
    "Manifest",
    "Prediction",
    "Predictor",
    "Registry",
    "__version__",
    "evaluate",
    "train",
]

_MODULES = {
    "Bundle": "lesion.model.bundle",
    "Client": "lesion.client",
    "DataModule": "lesion.data.datamodule",
    "ImageClassifier": "lesion.model.classifier",
    "Manifest": "lesion.data.manifest",
    "Prediction": "lesion.model.predictor",
    "Predictor": "lesion.model.predictor",
    "Registry": "lesion.registry.registry",
    "evaluate": "lesion.model.bundle_evaluation",
    "train": "lesion.training.run",
}


def __getattr__(name: str) -> object:
    """Load a public name."""
    if name not in _MODULES:
        raise AttributeError(f"module 'lesion' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """List the public names as well, before they are loaded."""
    return sorted({*globals(), *__all__})
