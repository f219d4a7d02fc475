"""One training run from end to end, and what it leaves for people, trackers and servers."""
