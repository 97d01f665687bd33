"""Readers of data files and documents: file types, encodings, records and conversion."""
