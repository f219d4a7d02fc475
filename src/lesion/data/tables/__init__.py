"""The tables that list the images of a dataset."""
