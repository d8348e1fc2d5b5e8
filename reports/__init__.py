"""Tables, figures and a page from the Parquet files of a store; never trains and never imports torch."""
