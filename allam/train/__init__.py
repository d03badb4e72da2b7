"""Packing, mixing, pretraining, vocabulary extension and continued pretraining (paper §2.1 to 2.3)."""
