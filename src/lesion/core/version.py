"""The version of Lesion."""

__version__ = "0.1.0"
