"""How well the engine does: its ``/metrics`` read, turned into figures, and sampled while it is ready."""
