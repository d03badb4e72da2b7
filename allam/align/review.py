"""People's verdicts on preference pairs: accept, edit or reject (paper §3.2: every preference sample is verified by people).

Decisions are an append-only JSON Lines file, `{"id", "decision": "accept" | "edit" | "reject", "edited": text, "reviewer"}`; the last one on a
pair counts. A line may carry `judged`, the digest that stands in waiting.jsonl: if the text has changed since, the verdict is stale and the
pair waits again. Each rejected response makes one pair with the accepted (or edited) text; one that equals it, or repeats another, is
dropped and counted.

Writes pairs.jsonl and waiting.jsonl. Run it with `allam stage review --recipe demo`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from allam.align.config import ReviewConfig
from allam.align.conversations import fingerprint, json_lines, read_strict
from allam.artifacts import write_atomic
from allam.errors import UserError
from allam.files import check_file
from allam.progress import track

DECISIONS = ("accept", "edit", "reject")


def run(config: ReviewConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Applies the decisions to the sampled candidates. Raises `UserError` where pairs wait for a verdict and the recipe says to wait."""
    candidates = read_strict(inputs["candidates"] / "candidates.jsonl")
    decisions: dict[str, dict[str, Any]] = {}
    for ref in config.files:
        for number, row in enumerate(read_strict(check_file(inputs["root"], ref)), 1):
            decisions[_checked(row, f"{ref.path}, decision {number}")["id"]] = row
    pairs, waiting, counts = [], [], Counter({name: 0 for name in (*DECISIONS, "undecided", "stale", "equal_to_chosen", "repeated")})
    for candidate in track(candidates, "prompts", len(candidates)):
        verdict = _verdict(candidate, decisions, counts)
        if verdict is None:
            waiting.append(candidate | {"judged": judged(candidate)})
            if config.undecided != "accept":
                continue
            verdict = {"decision": "accept"}
        if verdict["decision"] != "reject":
            pairs += _pairs(candidate, verdict, counts)
    write_atomic(out / "waiting.jsonl", json_lines(waiting))
    if waiting and config.undecided == "wait":
        raise UserError(f"{len(waiting)} of {len(candidates)} preference pairs wait for a person's verdict; they stand in {out / 'waiting.jsonl'}",
                        f"append decisions to {config.decisions or 'a file that align.review.decisions names'} and run again, "
                        "or set align.review.undecided to drop or accept")
    write_atomic(out / "pairs.jsonl", json_lines(pairs))
    if not pairs:
        raise UserError("no preference pair was accepted", "look at the decisions, or set align.review.undecided to accept")
    return {"prompts": len(candidates), "pairs": len(pairs), "waiting": len(waiting), "decisions": dict(counts),
            "unknown_decisions": len(set(decisions) - {c["id"] for c in candidates})}


def judged(candidate: dict[str, Any]) -> str:
    """The digest of what a reviewer sees: the conversation and the response that is to be preferred."""
    return fingerprint([candidate["messages"], candidate["chosen"]])


def _checked(row: dict[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(row.get("id"), str):
        raise UserError(f"{where}: has no id", "give the id of the preference prompt")
    if row.get("decision") not in DECISIONS:
        raise UserError(f"{where}: the decision {row.get('decision')!r} is not one of {', '.join(DECISIONS)}", "mend the line")
    if row["decision"] == "edit" and not (isinstance(row.get("edited"), str) and row["edited"].strip()):
        raise UserError(f"{where}: an edit without a text", "put the better response in `edited`")
    return row


def _verdict(candidate: dict[str, Any], decisions: dict[str, dict[str, Any]], counts: Counter[str]) -> dict[str, Any] | None:
    verdict = decisions.get(candidate["id"])
    if verdict is not None and verdict.get("judged") not in (None, judged(candidate)):
        counts["stale"] += 1
        verdict = None
    counts[verdict["decision"] if verdict else "undecided"] += 1
    return verdict


def _pairs(candidate: dict[str, Any], verdict: dict[str, Any], counts: Counter[str]) -> list[dict[str, Any]]:
    chosen = verdict["edited"] if verdict["decision"] == "edit" else candidate["chosen"]
    pairs, seen = [], set()
    for number, rejected in enumerate(candidate["rejected"]):
        form = " ".join(rejected["text"].split())
        if form == " ".join(chosen.split()):
            counts["equal_to_chosen"] += 1
        elif form in seen:
            counts["repeated"] += 1
        else:
            seen.add(form)
            pairs.append({"id": f"{candidate['id']}/{number}", "language": candidate["language"], "messages": candidate["messages"], "chosen": chosen,
                          "rejected": rejected["text"], "decision": verdict["decision"], "reviewer": verdict.get("reviewer")})
    return pairs
