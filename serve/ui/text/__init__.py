"""Sentences that the page writes from numbers."""
