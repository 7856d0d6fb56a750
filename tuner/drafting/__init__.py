"""Drafts a job file from a training command: finds its parameters, runs it briefly, and finds its scores."""
