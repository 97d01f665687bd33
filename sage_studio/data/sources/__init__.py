"""Sources of rows: files, the Hugging Face Hub, documents, the quick-start set."""
