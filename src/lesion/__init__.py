"""Lesion: from a folder of labelled images to an explained, calibrated and served diagnosis model."""

__version__ = "0.1.0"
