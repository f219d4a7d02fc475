"""The tables, their migrations, the sessions, the object store and the audit log."""
