"""Whether an image is like those that a model was trained on."""
