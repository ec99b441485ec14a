"""How scores become masks: thresholds, the rank rule, votes of masks, and rules that clean them."""
