"""Results of a finished run: Parquet schema (`records`), `outcome`, `classifier`, thumbnails and provenance.

`image_inputs` and `batches` make images of any kind inputs of a classifier.
"""
