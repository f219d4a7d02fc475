"""The command ``scripts/predict.py``: image files in; a table, JSON lines or CSV out."""
