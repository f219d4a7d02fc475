"""The check of labels before a retraining: which uploads that nobody reviewed probably have a wrong label."""
