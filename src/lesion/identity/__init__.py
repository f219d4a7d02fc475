"""What identifies a person stays out of the storage: keyed hashes for it, and files without it."""
