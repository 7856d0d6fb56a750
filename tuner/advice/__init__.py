"""Build a recommendation from the forecasts of a search, with evidence, warnings and sensitivity."""
