"""Builds the recommendation at the end of a search, with evidence, warnings and a sensitivity analysis.

If a search gives no recommendation, `no_answer` explains why.
"""
