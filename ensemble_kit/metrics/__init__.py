"""How masks agree with the truth: overlaps of classes, and confusion of exclusive ones."""
