"""A store on disk: zarr's metadata, the bytes of a sample, the manifest of what is committed, and the writer."""
