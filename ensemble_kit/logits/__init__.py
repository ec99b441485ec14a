"""Logit stores: written, read, verified and repaired; the bytes of zarr v3 groups and who may take them for data."""
