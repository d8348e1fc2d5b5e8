"""Policy searches in a store and on Ray."""
