"""The network, its fine-tuning, and the bundle that carries it to a predictor."""
