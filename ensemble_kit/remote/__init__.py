"""URLs of object storage: what is under them, copies of it on this machine, and what is written there."""
