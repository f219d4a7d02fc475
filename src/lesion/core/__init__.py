"""What every package needs: errors, validation, paths, logs and processes."""
