"""Recordings: tables of measured training runs that a job can replay instead of training, and their files."""
