"""A report or table as Markdown, LaTeX, CSV or text for a terminal."""
