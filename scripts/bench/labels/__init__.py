"""Measurements of what happens to wrong labels."""
