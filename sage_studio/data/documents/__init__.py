"""Documents: Markdown to sections, sections to questions or passages."""
