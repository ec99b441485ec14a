"""Recipes: what a command or a notebook does between its options and its answer."""
