"""Paceline's engine: what is trained, on what, how it is probed, predicted, searched and advised."""
