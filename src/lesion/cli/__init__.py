"""The command ``lesion``: one module for each of its commands."""
