"""Rows to train on: where they come from, what shape they have, how they are kept."""
