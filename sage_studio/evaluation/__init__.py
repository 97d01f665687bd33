"""Whether a model got better."""
