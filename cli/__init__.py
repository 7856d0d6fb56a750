"""Command line interface."""

from cli.app import app, main

__all__ = ["app", "main"]
