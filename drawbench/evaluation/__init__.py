"""Measuring: error rates, bounds, paired tests and cost."""
