"""What the gate decided in plain words, and what to do next."""
