"""Two ways to merge an Arabic tokenizer into a base's, before the same gate (paper §2.2): ours, and that of the public recipes.

    python -m bench.tokenizer_merge [--quick] [--rounds 5]

The public recipes append every piece that the base lacks with a score of 0, above all of the base's own. Base: Llama 2's tokenizer.model; Arabic: 32,000
pieces trained on real text where `../shared/data` or ALLAM_TEST_DATA has them, else both of the sample. The benchmark prints the gate's two tables, and
stops with an error where ours breaks a promise or the other keeps them all. Seconds are those of the merge alone, models in memory.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from allam.text.tokenizer import MODEL_FILE
from allam.tokenizer import check, fast, gate, merge, model
from allam.tokenizer.config import MergedTokenizerConfig
from allam.tokenizer.sampling import group_of, sample_lines
from allam.tokenizer.script import is_arabic_piece
from bench._harness import Row, arguments, finish, in_turn, seconds
from bench._text import extended_llama, merged_tokenizer, one_worker

LINES = 60_000  # of each group
WORDS, CHANGED = "running Arabic words cut as by the Arabic-only tokenizer", "lines without Arabic script whose ids changed"


def our_merge(base: model.ModelProto, arabic: model.ModelProto) -> model.ModelProto:
    """The stage's: pieces of Arabic script, below the base's."""
    return merge.add_specials(merge.add_pieces(base, merge.new_pieces(base, arabic, is_arabic_piece)), 64)


def public_merge(base: model.ModelProto, arabic: model.ModelProto) -> model.ModelProto:
    """The public recipes': whatever the base lacks, with a score of 0. Special tokens as in ours, so that the rest can be compared."""
    merged = model.copy(base)
    for piece in merge.new_pieces(base, arabic, lambda piece: True):
        merged.pieces.add(piece=piece, score=0.0, type=model.NORMAL)
    return merge.add_specials(merged, 64)


def main() -> None:
    given = arguments(__doc__ or "")
    one_worker()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folders = None if given.quick else extended_llama(root / "real")
        if folders is None:
            merged_tokenizer(root, 512 if given.quick else 4000)
            folders = {"natural": root / "decontaminate", "base": root / "base_tokenizer", "arabic": root / "arabic_tokenizer"}
        base, arabic = (model.read(folders[name] / MODEL_FILE) for name in ("base", "arabic"))
        lines: gate.Lines = {"noise": check.noise()}
        for group, line in sample_lines([folders["natural"] / "documents"], group_of, 500 if given.quick else LINES, 0):
            lines.setdefault(group, []).append(line)
        judged = {}
        for title, way in (("ours", our_merge), ("score 0", public_merge)):
            out = root / title
            out.mkdir()
            fast.write_tokenizer(out, model.serialise(way(base, arabic)))
            found = gate.measure(gate.Folders(folders["base"], folders["arabic"], out), lines, MergedTokenizerConfig(), lines["arabic"], thorough=False)
            print(f"{title}\n{gate.table(found)}\n")
            judged[title] = {finding.promise: finding for finding in found}
        if not all(finding.held for finding in judged["ours"].values()) or all(finding.held for finding in judged["score 0"].values()):
            raise SystemExit("the gate lets the wrong merge through: see the tables above")
        ours, peer = in_turn(given.rounds, lambda: seconds(lambda: our_merge(base, arabic)), lambda: seconds(lambda: public_merge(base, arabic)))
    words, changed = ([judged[title][promise] for title in ("ours", "score 0")] for promise in (WORDS, CHANGED))
    finish("tokenizer_merge", [
        Row(f"merge of {len(base.pieces):,} and {len(arabic.pieces):,} pieces", "s", ours, peer, "score 0", "lower"),
        Row(f"of {words[0].of:,} running Arabic words, cut alike", "words", [words[0].measured], [words[1].measured], "score 0", "higher"),
        Row(f"of {changed[0].of:,} lines without Arabic script, changed", "lines",
            [changed[0].measured], [max(changed[1].measured, 1e-9)], "score 0", "lower")],
        ["sentencepiece"], given.quick)


if __name__ == "__main__":
    main()
