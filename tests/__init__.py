"""Tests; each folder has the name of the package that it tests."""
