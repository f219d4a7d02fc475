"""The search for near-duplicate images: registration, pairs and groups."""
