"""Downloading the reference data sets: sources, transfers, archives and their layout."""
