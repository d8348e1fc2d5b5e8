"""Figures of a report: functions that draw arrays on an `ax`, and functions from runs to values of `Figure`.

`choose` selects the cells and methods to draw; `rendering` turns a `Figure` into SVG and PNG.
"""
