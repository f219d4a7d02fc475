"""The parts of `lesion.images`: refusals, headers read by hand, and pixels of any mode turned into RGB."""
