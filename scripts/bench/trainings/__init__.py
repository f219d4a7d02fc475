"""Trainings that are repeated with and without an option, to see what the option is worth."""
