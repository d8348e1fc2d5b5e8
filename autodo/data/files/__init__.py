"""Image files: listing them, copying them from an object store, decoding them, and errors that name them."""
