"""What to train and how: recipes, the child process that follows one, and the files it reports through."""
