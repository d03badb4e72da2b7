"""Supervised finetuning and preference training (paper §3 and appendix C)."""
