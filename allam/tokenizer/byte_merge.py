"""What the stage merged_tokenizer does for a byte-level base: the merges learnt onward go behind the base's own, then special tokens and padding (paper §2.2).

Nothing of the base is touched, and the new pieces are of Arabic script, so text without it keeps its ids. allam/tokenizer/byte_gate.py proves it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from allam.artifacts import write_json
from allam.chat.tokens import CHAT_SPECIALS
from allam.tokenizer import byte_arabic, byte_base, byte_gate, gate
from allam.tokenizer.config import MergedTokenizerConfig


def run(config: MergedTokenizerConfig, folders: gate.Folders, lines: gate.Lines, reach: Iterable[str]) -> dict[str, Any]:
    """Writes the extended tokenizer to `folders.merged` and judges it on `lines`."""
    base, merges = byte_base.read(folders.base), byte_arabic.read_merges(folders.arabic)
    first = max(base.ids.values()) + 1
    extended = byte_base.extended(base, merges, config.pad_to_multiple)
    byte_base.write(folders.merged, extended, chat=True)
    findings = byte_gate.measure(folders, lines, config, reach, exceptions=folders.merged / gate.EXCEPTIONS)
    write_json(folders.merged / "gate.json", gate.as_json(findings))
    gate.require(findings)
    size = max(extended.ids.values()) + 1
    specials = len(extended.specials) - len(base.specials)
    metrics: dict[str, Any] = {
        "vocab_size": size, "base_pieces": first, "new_pieces": len(merges), "special_tokens": specials,
        "padding_rows": size - first - len(merges) - specials, "left_out_pieces": 0, "bos_added": specials > len(CHAT_SPECIALS),
        "gate": {finding.promise: {"measured": finding.measured, "of": finding.of} for finding in findings}}
    byte_base.write_summary(folders.merged, metrics)
    return metrics
