"""What the bench of hostile clients does to a server, by what it is about."""
