"""Files on a path or in an object store, written atomically."""
