"""The report's alignment section: what the quality checks dropped, what was sampled, and what people decided."""

from __future__ import annotations

from collections import Counter
from typing import Any

from allam.report.read import Artifacts
from allam.report.words import is_arabic, sentence, shortened

DROPPED = {
    "empty_response": "the assistant says nothing", "too_short": "an assistant turn is shorter than the limit",
    "too_long": "an assistant turn is longer than the limit",
    "repetition": "the response repeats itself", "duplicate": "met before", "near_duplicate": "almost the same as one met before",
    "wrong_language": "the response is in another language than asked for", "bad_conversation": "the turns make no conversation",
}
RECORDS_READ = 3000
EXAMPLES = 4


def alignment_section(artifacts: Artifacts) -> dict[str, Any] | None:
    """Counts and examples of curation, and the pairs with their decisions; None where neither stage is there."""
    curated, reviewed = _curated(artifacts), _reviewed(artifacts)
    return {"curated": curated, "reviewed": reviewed, "explained": DROPPED} if curated or reviewed else None


def _curated(artifacts: Artifacts) -> dict[str, Any] | None:
    funnel = artifacts.metrics("curate").get("funnel")
    if not funnel:
        return None
    dropped: Counter[str] = Counter()
    for counts in funnel.values():
        dropped.update(counts.get("dropped", {}))
        dropped.update(counts.get("set_aside", {}))
    first: dict[str, dict[str, Any]] = {}
    for record in artifacts.lines("curate", "dropped.jsonl", RECORDS_READ):
        lines = shortened(str(record.get("text", "")), 200).splitlines()
        first.setdefault(str(record.get("reason", "")), {"detail": str(record.get("detail") or ""), "lines": lines})
    return {"in": sum(c["in"] for c in funnel.values()), "out": sum(c["out"] for c in funnel.values()), "dropped": sorted(dropped.items()), "examples": first}


def _turns(messages: Any) -> list[dict[str, str]]:
    """A conversation's turns as text; a damaged one, which is why it was dropped, as far as it goes."""
    turns = messages if isinstance(messages, list) else []
    return [{"role": str(t.get("role", "")), "content": shortened(str(t.get("content", "")), 200)} for t in turns if isinstance(t, dict)]


def _reviewed(artifacts: Artifacts) -> dict[str, Any] | None:
    metrics, pairs = artifacts.metrics("review"), artifacts.lines("review", "pairs.jsonl", RECORDS_READ)
    if not metrics and not pairs:
        return None
    shown: list[dict[str, Any]] = []
    seen = set()
    for pair in pairs:  # one of each decision and language, as far as there are so many
        kind = (pair.get("decision"), pair.get("language"))
        if kind not in seen and len(shown) < EXAMPLES:
            seen.add(kind)
            chosen, rejected = str(pair.get("chosen", "")), str(pair.get("rejected", ""))
            shown.append({"messages": _turns(pair.get("messages")), "arabic": is_arabic(chosen), "chosen": shortened(chosen),
                          "rejected": shortened(rejected), "decision": str(pair.get("decision", ""))})
    return {"prompts": metrics.get("prompts"), "pairs": metrics.get("pairs", len(pairs)), "waiting": metrics.get("waiting"),
            "decisions": {sentence(name): number for name, number in (metrics.get("decisions") or {}).items() if number}, "shown": shown}
