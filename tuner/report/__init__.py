"""Renderings of a recommendation and its evidence."""
