"""Synthetic stores with known answers, to try reports on and to test and measure code that reads stores."""
