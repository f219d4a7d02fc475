"""Real servers, pages and workers for tests."""
