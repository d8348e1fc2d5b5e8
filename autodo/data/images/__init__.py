"""Labelled images, in memory or in files: the protocols that all other parts use, stratified splits, random crops."""
