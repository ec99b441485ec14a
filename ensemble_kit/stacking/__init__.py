"""A second stage over members' logits: features of every pixel, a logistic regression of each class, its file."""
