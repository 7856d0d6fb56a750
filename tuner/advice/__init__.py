"""Advice: turns what the search believes into a recommendation with evidence, warnings and sensitivity."""
