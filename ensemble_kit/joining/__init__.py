"""Joining members: whether they fit, which samples they share, and what each weighs."""
