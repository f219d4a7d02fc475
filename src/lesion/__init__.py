"""Lesion: from a folder of labelled images to an explained, calibrated and served diagnosis model."""

from lesion.core.version import __version__

__all__ = ["__version__"]
