"""Translation by a sequence-to-sequence model of transformers: Marian, NLLB, M2M-100, MADLAD (paper §2.1).

The model is a folder below the data root, checked against the plan's checksums, or a hub's model that was fetched before, at a revision. No code of the
model's runs; weights are safetensors, or are opened as plain tensors (weights_only). Each input is `[language mark] sentence </s>`, put together here;
a `</s>` that stands in a text is left out. Decoding is by beams without sampling. Sentences are batched by length class, and an output's
limit follows from its class alone, so that what a sentence becomes doesn't depend on its neighbours (but for rounding).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from allam.cluster import execution
from allam.data.config import MachineTranslateConfig
from allam.engine.device import compute_device
from allam.errors import StageFailed, UserError
from allam.files import MISSING, check_file

TOKENS_A_CLASS = 16
OUTPUT_PER_INPUT = 2.5  # tokens at most; only loops get there


@dataclass(frozen=True)
class _Family:
    """How a family of models is told the target language: a mark before the input, or the first token of the output."""

    source: str | None
    target: str
    mark_is_source: bool = False


FAMILIES = {"marian": _Family(None, ">>ara<<"), "nllb": _Family("eng_Latn", "arb_Arab", mark_is_source=True),
            "m2m_100": _Family("en", "ar", mark_is_source=True), "t5": _Family(None, "<2ar>")}


class Seq2SeqTranslator:
    """Loads the model when the first sentence is asked for."""

    def __init__(self, config: MachineTranslateConfig, root: Path) -> None:
        self.config, self.root = config, root

    @property
    def identity(self) -> dict[str, Any]:
        """What decides how a sentence is translated."""
        config = self.config
        return config.model_dump(mode="json", include={"model", "revision", "source_code", "target_code", "beams", "precision"}) | {
            "files": sorted(ref.sha256 for ref in config.files), "output_per_input": OUTPUT_PER_INPUT}

    def batches(self, sentences: Sequence[str]) -> Iterator[list[tuple[str, str]]]:
        """(sentence, translation) for each of the sentences, a batch at a time, the longest first, so that too little memory shows at once."""
        loaded, size = self._loaded, execution().micro_batch
        coded = [loaded.encode(sentence) for sentence in sentences]
        classes: dict[int, list[int]] = {}
        for number in sorted(range(len(coded)), key=lambda n: (-len(coded[n]), sentences[n])):
            classes.setdefault(-(-len(coded[number]) // TOKENS_A_CLASS), []).append(number)
        for length, numbers in classes.items():
            for at in range(0, len(numbers), size):
                batch = numbers[at: at + size]
                answers = loaded.translate([coded[n] for n in batch], length * TOKENS_A_CLASS)
                yield [(sentences[n], answer) for n, answer in zip(batch, answers, strict=True)]

    @cached_property
    def _loaded(self) -> _Loaded:
        return _Loaded(self.config, _folder(self.config, self.root))


def _folder(config: MachineTranslateConfig, root: Path) -> Path:
    assert config.model is not None
    if config.revision is None:
        for ref in config.files:
            if ref.sha256 != MISSING:
                check_file(root, ref)
        return root / config.model
    from huggingface_hub import snapshot_download  # only where a recipe names a hub's model

    try:
        return Path(snapshot_download(config.model, revision=config.revision, local_files_only=True))
    except (OSError, ValueError) as error:
        raise StageFailed(f"data.machine_translate.model {config.model} at {config.revision} isn't on this machine: {str(error).splitlines()[0]}",
                          f"fetch it where there is internet: hf download {config.model} --revision {config.revision} (HF_HOME says where it lies)") from None


class _Loaded:
    """Model and tokenizer on the profile's device."""

    def __init__(self, config: MachineTranslateConfig, folder: Path) -> None:
        from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer  # takes seconds to import

        if not (folder / "config.json").is_file():
            raise UserError(f"data.machine_translate.model {config.model!r} has no config.json in {folder}", "give the folder of a model of transformers")
        self.config, self.device = config, compute_device()
        only_data: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            kind = AutoConfig.from_pretrained(folder, **only_data).model_type
            if kind not in ("marian", "m2m_100", "t5"):
                raise UserError(f"data.machine_translate.model {config.model!r} is a {kind!r} model", "use a Marian, NLLB, M2M-100 or MADLAD model")
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
                self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, **only_data)
            self.model: Any = AutoModelForSeq2SeqLM.from_pretrained(
                folder, dtype=torch.float32 if config.precision == "fp32" else torch.bfloat16, use_safetensors=any(folder.glob("*.safetensors")),
                weights_only=True, **only_data)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"data.machine_translate.model {config.model!r} can't be loaded: {type(error).__name__}: {str(error).splitlines()[0][:300]}",
                            "give a folder with config.json, weights (safetensors, or a plain pytorch_model.bin) and the tokenizer's files") from error
        self.model.to(self.device).eval()
        self.control = {self.tokenizer.eos_token_id, self.tokenizer.pad_token_id, self.model.config.decoder_start_token_id}
        self._settle_languages(kind)
        positions = getattr(self.model.config, "max_position_embeddings", None)
        self.longest: int | None = None if kind == "t5" else positions
        if self.longest is not None and config.max_sentence_chars + 2 > self.longest:
            raise UserError(f"the model {config.model!r} takes {self.longest} tokens, and a sentence may have as many as its characters and two more",
                            f"set data.machine_translate.max_sentence_chars to {self.longest - 2} or less")

    def _settle_languages(self, kind: str) -> None:
        """Finds the marks of the family's languages, or those that the recipe gives instead."""
        codes: list[str] | None = None
        if kind == "marian":
            codes = list(self.tokenizer.supported_language_codes)  # none where the model translates into one language only
        name = "nllb" if kind == "m2m_100" and self._id("arb_Arab") is not None else kind
        family = FAMILIES[name]
        target = self.config.target_code or (family.target if codes is None or codes else None)
        source = self.config.source_code or family.source
        if name == "m2m_100":
            source, target = f"__{source}__", f"__{target}__"
        ids = {field: self._known(field, code, codes) for field, code in (("source_code", source), ("target_code", target)) if code is not None}
        self.mark = ids.get("source_code" if family.mark_is_source else "target_code")
        self.first = ids["target_code"] if family.mark_is_source else None

    def _id(self, token: str) -> int | None:
        found = self.tokenizer.convert_tokens_to_ids(token)
        return found if isinstance(found, int) and found != self.tokenizer.unk_token_id else None

    def _known(self, field: str, code: str, codes: list[str] | None) -> int:
        found = self._id(code)
        if found is None:
            known = f"; it knows {', '.join(codes[:20])}" if codes else ""
            raise UserError(f"the model {self.config.model!r} has no language {code!r}{known}", f"set data.machine_translate.{field} to the model's own code")
        return found

    def encode(self, sentence: str) -> list[int]:
        """The model's input. Some tokenizers take a literal `</s>` for the end whatever they are told: control tokens of the text are left out."""
        ids = [i for i in self.tokenizer(sentence, add_special_tokens=False, split_special_tokens=True)["input_ids"] if i not in self.control]
        head = [] if self.mark is None else [self.mark]
        room = len(ids) if self.longest is None else self.longest - len(head) - 1
        return [*head, *ids[:room], self.tokenizer.eos_token_id]

    def translate(self, rows: list[list[int]], longest: int) -> list[str]:
        """Translations of a batch whose inputs have at most `longest` tokens."""
        pad, width = self.tokenizer.pad_token_id, max(map(len, rows))
        ids_BS = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=self.device)
        mask_BS = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self.device)
        limit = int(OUTPUT_PER_INPUT * longest)
        limit = limit if self.longest is None else min(limit, self.longest - 2)
        try:
            with torch.inference_mode():
                made = self.model.generate(input_ids=ids_BS, attention_mask=mask_BS, num_beams=self.config.beams, do_sample=False,
                                           forced_bos_token_id=self.first, max_new_tokens=limit)
        except torch.OutOfMemoryError:
            raise StageFailed(f"{len(rows)} sentences of up to {longest} tokens don't fit into the device's memory",
                              "lower micro_batch in the cluster profile and run again; sentences that were translated are kept") from None
        return [" ".join(text.split()) for text in self.tokenizer.batch_decode(made, skip_special_tokens=True, clean_up_tokenization_spaces=False)]
