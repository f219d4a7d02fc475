"""The screen that predicts images."""
