"""Backup, verification and restore of the database and the object store."""
