"""Sources of rows: local files, the Hugging Face Hub, documents, the SAGE documentation, the quick-start set."""
