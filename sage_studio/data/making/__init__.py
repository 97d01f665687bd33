"""New datasets made of those that are there: edited, combined, enlarged. Every row says which one it came from."""
