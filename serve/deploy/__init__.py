"""What runs Lesion on one machine and on many."""
