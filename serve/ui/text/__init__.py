"""Sentences that the page makes of numbers."""
