"""Foundations that every package may use: errors, validation, files, text, logs and processes."""
