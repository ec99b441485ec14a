"""Threshold sets: what tuning found, its file, and whether it fits an ensemble."""
