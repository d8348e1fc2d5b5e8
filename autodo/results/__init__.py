"""Results of a finished run: Parquet schema (`records`), `outcome`, `classifier`, thumbnails and provenance."""
