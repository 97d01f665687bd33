"""What every tab is made of: events, labels, tables, plots, dialogs."""
