"""Drafts a job file from a training command: finds its parameters, runs it for a short time, finds scores."""
