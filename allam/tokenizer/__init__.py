"""A base tokenizer, an Arabic one, the two merged, and their fertility (paper §2.2, Figure 1)."""
