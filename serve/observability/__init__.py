"""Metrics, traces and request statistics."""
