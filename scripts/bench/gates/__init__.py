"""Simulated retrainings, with code of its own: of the gate it calls ``decide`` and the levels of looks only."""
