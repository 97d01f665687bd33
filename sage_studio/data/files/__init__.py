"""Files that somebody brought: their bytes, what is in them, their records; nothing here knows a training format."""
