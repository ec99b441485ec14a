"""Masks as sorted intervals: one, many, and a set of them by sample and class."""
