"""The report as one self-contained HTML file, which makes no network requests."""

from reports.html.page import Picture, to_html

__all__ = ["Picture", "to_html"]
