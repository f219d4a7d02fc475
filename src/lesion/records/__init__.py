"""Records of answers: what a model answered, to which image and when, each linked to the one before."""
