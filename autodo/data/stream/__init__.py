"""Images that stay in their files, or in tar shards, and are read when they are needed.

`check` finds damaged files and the images in shards, `index` keeps that for the next run, `image_files` reads bytes,
`pool` decodes them in worker processes, and `streamed_images` is the set that a run trains on.
"""
