"""The tasks of the area `tokenizer` (paper §2.2)."""

from tasks.stage import stage_task

base_tokenizer = stage_task("base_tokenizer", "The base model's tokenizer, imported or trained on English.")
arabic_tokenizer = stage_task("arabic_tokenizer", "An Arabic-only SentencePiece BPE with byte fallback.")
merged_tokenizer = stage_task("merged_tokenizer", "The base's tokens, then the new Arabic ones and the special tokens.")
fertility = stage_task("fertility", "Tokens a word of English, Arabic and code under the three tokenizers.")
