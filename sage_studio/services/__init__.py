"""Services: one class for each noun; their collaborators are arguments of the constructor."""
