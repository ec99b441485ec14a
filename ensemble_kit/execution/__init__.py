"""Running work on samples, in threads or elsewhere, and reporting its progress."""
