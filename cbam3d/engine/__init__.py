"""A model and loaders -> a run folder. Knows no network and no file format."""
