"""Results of a finished run: Parquet schema (`records`), `outcome`, `classifier`, thumbnails and provenance.

`image_inputs` and `batches` make images of any kind inputs of a classifier, `export` writes it in other formats, and
`model_card` describes it.
"""
