"""Runs of a recipe: kept in a table and a folder each, started, watched, stopped and continued."""
