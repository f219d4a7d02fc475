"""One training run from end to end, with its report, its bundle and its logs."""
