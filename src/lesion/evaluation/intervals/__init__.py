"""Confidence intervals of each metric, for images that come in groups, for rare classes and for small test sets."""
