"""One run: in this process, as a trial of Ray Tune, or by several workers of Ray Train."""
