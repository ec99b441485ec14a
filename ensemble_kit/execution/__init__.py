"""Where work runs: over samples, in threads; what it reports while it does."""
