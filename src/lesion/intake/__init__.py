"""How uploaded images are accepted, quarantined or rejected."""
