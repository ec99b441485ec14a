"""The winning solution's training side, on the public API of ensemble_kit."""
