"""Colors of charts on the page and of figures in reports."""

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's colors, which readers with any kind of color vision can tell apart."""
