"""A small English-Arabic Marian model, trained here on parallel sentences: what stands in for published weights where none can be had.

SentencePiece vocabularies of its own, two layers on each side, some three million parameters; one thread, fp32, a fixed seed. The schedule
(linear warm-up, then the inverse square root of the step) doesn't know its end, so that `steps` alone says which weights come out.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import sentencepiece
import torch
from torch.nn import functional
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

Pair = tuple[str, str]  # English, Arabic
EOS, UNK, PAD = "</s>", "<unk>", "<pad>"
SENTENCES_A_STEP, WARM_UP, PEAK_RATE = 64, 400, 2e-3


def make_vocabularies(folder: Path, pairs: Sequence[Pair], pieces: int) -> MarianTokenizer:
    """Trains a SentencePiece model for each side and writes Marian's tokenizer files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, int] = {EOS: 0, UNK: 1}
    for side, name in enumerate(("source", "target")):
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter([pair[side] for pair in pairs]), model_prefix=str(folder / name), vocab_size=pieces,
                                                 model_type="unigram", bos_id=-1, hard_vocab_limit=False, num_threads=1, minloglevel=2)
        (folder / f"{name}.model").replace(folder / f"{name}.spm")
        (folder / f"{name}.vocab").unlink()
        processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{name}.spm"))
        for piece in range(processor.get_piece_size()):
            found.setdefault(processor.id_to_piece(piece), len(found))
    found[PAD] = len(found)
    (folder / "vocab.json").write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    tokenizer = MarianTokenizer(str(folder / "source.spm"), str(folder / "target.spm"), str(folder / "vocab.json"), source_lang="en", target_lang="ar")
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_model(tokenizer: MarianTokenizer, width: int, layers: int, seed: int = 0) -> MarianMTModel:
    """Random weights in Marian's shape."""
    torch.manual_seed(seed)
    pad, size = tokenizer.pad_token_id, len(tokenizer.get_vocab())
    return MarianMTModel(MarianConfig(
        vocab_size=size, d_model=width, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=3 * width, decoder_ffn_dim=3 * width, max_position_embeddings=512, dropout=0.2, attention_dropout=0.0, activation_function="swish",
        scale_embedding=True, pad_token_id=pad, eos_token_id=tokenizer.eos_token_id, forced_eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=pad,
        share_encoder_decoder_embeddings=True, tie_word_embeddings=True))


def train(model: MarianMTModel, tokenizer: MarianTokenizer, pairs: Sequence[Pair], steps: int, note: Callable[[int, float, float], None]) -> None:
    """`note(step, mean loss, seconds)` is called every 100 steps."""
    optimizer = torch.optim.Adam(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), eps=1e-9)
    coded = [(source, target) for source, target in _coded(tokenizer, pairs) if len(source) <= 60 and len(target) <= 60]
    batches, losses, begun = _batches(coded, tokenizer.pad_token_id), list[float](), time.process_time()
    model.train()
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * min(step / WARM_UP, (WARM_UP / step) ** 0.5)
        source_BS, target_BT = next(batches)
        start_B1 = torch.full((len(target_BT), 1), tokenizer.pad_token_id)
        logits_BTV = model(input_ids=source_BS, attention_mask=source_BS != tokenizer.pad_token_id,
                           decoder_input_ids=torch.cat([start_B1, target_BT[:, :-1]], dim=1)).logits
        loss = functional.cross_entropy(logits_BTV.flatten(0, 1), target_BT.flatten(), ignore_index=tokenizer.pad_token_id, label_smoothing=0.1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 100 == 0 or step == steps:
            note(step, sum(losses) / len(losses), time.process_time() - begun)
            losses = []
    model.eval()


def _coded(tokenizer: MarianTokenizer, pairs: Sequence[Pair]) -> list[tuple[list[int], list[int]]]:
    sources = tokenizer([english for english, _ in pairs])["input_ids"]
    targets = tokenizer(text_target=[arabic for _, arabic in pairs])["input_ids"]
    return list(zip(sources, targets, strict=True))


def _batches(coded: list[tuple[list[int], list[int]]], pad: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches of about equally long pairs, in a new order each epoch."""
    choice = random.Random(0)
    while True:
        order = sorted(range(len(coded)), key=lambda i: (len(coded[i][1]) + choice.random(), i))
        chunks = [order[at: at + SENTENCES_A_STEP] for at in range(0, len(order), SENTENCES_A_STEP)]
        choice.shuffle(chunks)
        for chunk in chunks:
            yield _padded([coded[i][0] for i in chunk], pad), _padded([coded[i][1] for i in chunk], pad)


def _padded(rows: list[list[int]], pad: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [pad] * (width - len(row)) for row in rows])
