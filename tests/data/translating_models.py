"""Tiny translating models with random weights and real SentencePiece vocabularies, made on the spot: one of each family."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # as in a worker; read when transformers is imported

import sentencepiece
import torch
from transformers import M2M100Config, M2M100ForConditionalGeneration, MarianConfig, MarianMTModel, PreTrainedModel, T5Config, T5ForConditionalGeneration
from transformers.models.marian.tokenization_marian import MarianTokenizer

ENGLISH = ["The old market was built near the river, and people came from far away.", "My sister reads a new book every week.",
           "Water boils sooner on a high mountain.", "In 1950 there were 120 shops here.", "See the page about birds; it is short."]
ARABIC = ["بنيت السوق القديمة قرب النهر وجاء الناس من بعيد", "تقرأ أختي كتابًا جديدًا كل أسبوع", "يغلي الماء أسرع فوق الجبل العالي",
          "كان هنا في عام 1950 نحو 120 متجرًا", "انظر الصفحة عن الطيور فهي قصيرة"]


def pieces(folder: Path, name: str, lines: list[str], symbols: list[str] | None = None) -> list[str]:
    """Trains a SentencePiece model into `name`; returns its pieces."""
    target = folder / name
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=_lines(lines), model_prefix=str(target), vocab_size=120, hard_vocab_limit=False, bos_id=-1,
                                             pad_id=3, pad_piece="<pad>", user_defined_symbols=symbols or [], minloglevel=2, num_threads=1)
    target.with_name(name + ".model").replace(target)
    target.with_name(name + ".vocab").unlink()
    processor = sentencepiece.SentencePieceProcessor(model_file=str(target))
    return [processor.id_to_piece(i) for i in range(processor.get_piece_size())]


def _lines(lines: list[str]) -> Iterator[str]:
    yield from lines * 20


def save(model: PreTrainedModel, folder: Path) -> Path:
    """Sharper than fresh weights are, so that no two answers are nearly equally likely."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "position" not in name:
                parameter.mul_(6.0)
    model.save_pretrained(folder)
    return folder


def marian(folder: Path, codes: tuple[str, ...] = ()) -> Path:
    """Marian with a joint vocabulary; `codes` are the marks of a model with several target languages."""
    folder.mkdir(parents=True)
    known = ["</s>", "<unk>", *codes, *pieces(folder, "source.spm", ENGLISH), *pieces(folder, "target.spm", ARABIC)]
    vocabulary = {piece: i for i, piece in enumerate([*(p for p in dict.fromkeys(known) if p != "<pad>"), "<pad>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    MarianTokenizer(str(folder / "source.spm"), str(folder / "target.spm"), str(folder / "vocab.json")).save_pretrained(folder)
    torch.manual_seed(1)
    pad = vocabulary["<pad>"]
    return save(MarianMTModel(MarianConfig(
        vocab_size=len(vocabulary), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64,
        decoder_ffn_dim=64, max_position_embeddings=128, pad_token_id=pad, eos_token_id=0, forced_eos_token_id=0, decoder_start_token_id=pad,
        scale_embedding=True)), folder)


def m2m_100(folder: Path) -> Path:
    """M2M-100 with its hundred language marks."""
    from transformers.models.m2m_100.tokenization_m2m_100 import M2M100Tokenizer

    folder.mkdir(parents=True)
    known = ["<s>", "<pad>", "</s>", "<unk>", *pieces(folder, "sentencepiece.bpe.model", ENGLISH + ARABIC)]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(dict.fromkeys(known))}), encoding="utf-8")
    tokenizer = M2M100Tokenizer(str(folder / "vocab.json"), str(folder / "sentencepiece.bpe.model"), num_madeup_words=0)
    tokenizer.save_pretrained(folder)
    return save(_m2m(max(tokenizer.lang_token_to_id.values()) + 1), folder)


def nllb(folder: Path) -> Path:
    """NLLB: the architecture of M2M-100 with a tokenizer of its own."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer
    from transformers.models.nllb.tokenization_nllb import NllbTokenizer

    folder.mkdir(parents=True)
    plain = Tokenizer(BPE())
    plain.train_from_iterator([("▁" + line.replace(" ", "▁")) for line in ENGLISH + ARABIC],
                              BpeTrainer(vocab_size=200, special_tokens=["<s>", "<pad>", "</s>", "<unk>"]))
    model = json.loads(plain.to_str())["model"]
    tokenizer = NllbTokenizer(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]])
    tokenizer.save_pretrained(folder)
    return save(_m2m(len(tokenizer)), folder)


def _m2m(size: int) -> M2M100ForConditionalGeneration:
    torch.manual_seed(2)
    return M2M100ForConditionalGeneration(M2M100Config(
        vocab_size=size, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64,
        decoder_ffn_dim=64, max_position_embeddings=128, pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2))


def madlad(folder: Path) -> Path:
    """MADLAD: T5 with `<2xx>` marks among its pieces."""
    from transformers import T5Tokenizer

    folder.mkdir(parents=True)
    pieces(folder, "spiece.model", ENGLISH + ARABIC, ["<2ar>", "<2fa>"])
    tokenizer = T5Tokenizer.from_pretrained(folder, extra_ids=0, legacy=False)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    return save(T5ForConditionalGeneration(T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=16, num_layers=1, num_decoder_layers=1, num_heads=2, d_ff=64, feed_forward_proj="gated-gelu",
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False)), folder)
