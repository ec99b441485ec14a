"""Thresholds from counts: statistics, curves, folds, the exact optimum, and searches around it."""
