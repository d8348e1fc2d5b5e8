"""Figures of a report: functions that draw arrays on an `ax`, and functions that make a `Figure` of a store's runs."""
