"""Commands on the server's own storage."""
