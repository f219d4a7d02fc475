"""The search for near-duplicate images: signatures, placement, registration, pairs and groups."""
