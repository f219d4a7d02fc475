"""Brain MRI phantoms: synthetic patients with four diagnoses, for demonstrations and tests without real data."""
