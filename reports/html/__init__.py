"""The report as one HTML file that needs nothing else: opens from disk, asks nothing of a network."""

from reports.html.page import Picture, to_html

__all__ = ["Picture", "to_html"]
