"""The images that the loop keeps: rows, snapshots, statistics and lineage."""
