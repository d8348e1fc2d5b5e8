"""What is left of a grid, in which order it runs, and how long it takes."""
