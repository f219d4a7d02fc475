"""HTTP concerns that all routes share: authentication, limits, problems, schemas."""
