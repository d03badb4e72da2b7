"""From the recipe's model shape to transformers' configuration, and what a model folder needs to know of its tokenizer."""

from __future__ import annotations

from pathlib import Path

from transformers import LlamaConfig

from allam.chat.tokens import END
from allam.engine.model import save_generation_config
from allam.text.tokenizer import Tokenizer
from allam.train.config import ModelConfig

INITIAL_STD = 0.02


def llama_config(shape: ModelConfig, tokenizer: Tokenizer) -> LlamaConfig:
    """A Llama of this shape with one row for each of the tokenizer's ids."""
    return LlamaConfig(  # type: ignore[call-arg]  # rope_theta goes into rope_parameters
        vocab_size=tokenizer.vocab_size, hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.max_positions, rope_theta=shape.rope_theta, rms_norm_eps=shape.norm_eps,
        tie_word_embeddings=shape.tied_embeddings, initializer_range=INITIAL_STD, bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id, pad_token_id=tokenizer.pad_id, attention_bias=False, use_cache=True)


def write_generation_config(folder: Path, tokenizer: Tokenizer) -> None:
    """Generation ends at `</s>`, and at `<|end|>` where the tokenizer has it; padding rows are never given."""
    ends = [tokenizer.eos_id, *([tokenizer.special[END]] if END in tokenizer.special else [])]
    save_generation_config(folder, ends, tokenizer.bos_id, tokenizer.pad_id, tokenizer.padding)
