"""Use cases: what the command line and other callers ask for, with storage injected."""
