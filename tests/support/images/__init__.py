"""Image files and catalogue rows for tests."""
