"""The database's tables, migrations and sessions, the object store and the audit log."""
