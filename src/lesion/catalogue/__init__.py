"""The stored images: their rows, snapshots, statistics and lineage."""
