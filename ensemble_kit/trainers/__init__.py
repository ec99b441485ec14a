"""One file a training framework, over `LogitWriter`; each imports its framework when it is used."""
