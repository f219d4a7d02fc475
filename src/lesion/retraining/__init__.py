"""Durable retraining jobs: the workflow, its stages and the worker that runs them."""
