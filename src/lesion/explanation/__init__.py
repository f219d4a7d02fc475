"""Explanations of predictions: class activation maps and their faithfulness."""
