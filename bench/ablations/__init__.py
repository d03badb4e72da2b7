"""Comparisons of what is learned, by training: hours each, and no part of `make bench`."""
