"""Comparison forms, language identification and the loading of tokenizers: what several areas need of text."""
