"""From masks, stores, sets and truth to a page, for `ensk report` and notebooks."""
