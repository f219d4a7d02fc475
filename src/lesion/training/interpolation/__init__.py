"""Weights between those that a training starts from and those that it ends with."""
