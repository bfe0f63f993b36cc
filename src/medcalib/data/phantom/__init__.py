"""Datasets that this package makes, whose true probabilities are known."""
