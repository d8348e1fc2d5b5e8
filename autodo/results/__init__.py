"""Results of a finished run: Parquet schema, outcome, classifier."""
