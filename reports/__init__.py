"""Turns a store's Parquet files into tables and figures; never trains and never imports torch."""
