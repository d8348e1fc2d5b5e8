"""Files on a path or in an object store (start with `storage`), atomic writes, locks and retries."""
