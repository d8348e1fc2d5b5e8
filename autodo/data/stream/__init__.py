"""Images that are read from their files when they are needed: finding them, checking them, decoding them in workers."""
