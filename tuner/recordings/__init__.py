"""Recordings: tables of measured runs that a recorded job replays, and their file format."""
