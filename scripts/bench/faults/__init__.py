"""Faults at each stage of the loop, by real processes on small data."""
