"""Bundles for tests, made in milliseconds."""
