"""A report or table as Markdown, LaTeX, CSV or text of a terminal."""
