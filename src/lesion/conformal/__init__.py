"""Promises that hold for finite samples: sets that contain the right class, and answers that are withheld."""
