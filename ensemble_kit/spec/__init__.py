"""Frozen values that everything else passes around: geometry, names, fusion, scoring."""
