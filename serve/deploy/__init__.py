"""Deployment: processes, containers and clusters that run Lesion on one machine or on many."""
