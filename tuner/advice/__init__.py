"""Build the recommendation of a search, with evidence, warnings and a sensitivity analysis.

If a search gives no recommendation, `no_answer` explains why.
"""
