"""Benchmarks, judge, votes and Elo (paper §4 and appendix D)."""
