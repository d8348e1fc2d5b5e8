"""What a finished run leaves: the Parquet schema, the outcome, the classifier."""
