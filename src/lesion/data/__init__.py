"""From image files to batches: scan, group near-duplicates, split, cache, augment."""
