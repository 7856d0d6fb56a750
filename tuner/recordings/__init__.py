"""Recorded runs: the table of measured runs that a recorded job replays, and its file format."""
