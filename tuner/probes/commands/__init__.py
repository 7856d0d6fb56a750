"""Probes that run a user command: start it, read its metrics, keep its training clock."""
