"""The command that predicts image files."""
