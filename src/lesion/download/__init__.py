"""Download the reference datasets: sources, transfers, archives and layouts."""
