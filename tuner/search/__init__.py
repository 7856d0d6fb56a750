"""Search policies and the search loop."""
