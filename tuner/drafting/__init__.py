"""Drafts a job file from a training command: its options, a short run, and the lines that hold scores."""
