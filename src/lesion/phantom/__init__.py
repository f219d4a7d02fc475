"""Brain MRI phantoms: generated patients with four diagnoses, for demonstrations and tests without any data at hand."""
