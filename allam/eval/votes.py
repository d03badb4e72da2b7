"""From people's votes to ratings: three evaluators a comparison, their majority, a fourth to break a tie, then Elo (paper §4.3, D.1).

Votes are an append-only JSON Lines file, `{"question_id", "model_a", "model_b", "winner": "a" | "b" | "tie" | "both_bad", "evaluator"}`. It doesn't
matter which of two models stands as `a`. An evaluator's last vote on a comparison counts; the words of Chatbot Arena's files are understood too.

Writes elo.json. Run it with `allam stage votes --recipe demo`.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from allam.artifacts import write_json
from allam.errors import UserError
from allam.eval.config import VotesConfig
from allam.eval.elo import REWARDS, Comparison, elo
from allam.files import check_file

WINNERS = {"a": "a", "b": "b", "tie": "tie", "both_bad": "both_bad", "model_a": "a", "model_b": "b", "tie (bothbad)": "both_bad"}
SWAPPED = {"a": "b", "b": "a"}


@dataclass
class Ballot:
    """The votes on one comparison, by evaluator in the order in which they first voted; the models stand in alphabetical order."""

    model_a: str
    model_b: str
    votes: dict[str, str] = field(default_factory=dict)

    def verdict(self, evaluators: int) -> str | None:
        """The majority of the first `evaluators` votes; where they have none, what most of all votes say; None where that is a tie, too."""
        votes = list(self.votes.values())
        winner, count = Counter(votes[:evaluators]).most_common(1)[0]
        if count * 2 > evaluators:
            return winner
        (winner, count), *others = Counter(votes).most_common(2)
        return winner if len(votes) > evaluators and (not others or count > others[0][1]) else None


def run(config: VotesConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Counts the votes of the recipe's files and rates the models."""
    votes = [row for ref in config.files for row in read_votes(check_file(inputs["root"], ref))]
    ballots = collect(votes)
    complete = [b for b in ballots if len(b.votes) >= config.evaluators]
    verdicts = [(b, b.verdict(config.evaluators)) for b in complete]
    comparisons = [Comparison(b.model_a, b.model_b, verdict) for b, verdict in verdicts if verdict is not None]
    counts = {"votes": len(votes), "comparisons": len(comparisons), "incomplete": len(ballots) - len(complete), "unresolved": len(complete) - len(comparisons)}
    tables = {}
    for rewards in REWARDS:
        ratings = elo(comparisons, rewards, config.k, config.initial, config.permutations, config.resamples, config.seed)
        tables[rewards] = {model: asdict(rating) for model, rating in ratings.items()}
    write_json(out / "elo.json", tables | counts | {"agreement": agreement(ballots), "pairs": _pairs(comparisons)})
    return counts | {rewards: {m: r["rating"] for m, r in table.items()} for rewards, table in tables.items()}


def read_votes(path: Path) -> list[dict[str, str]]:
    """The votes of a file; raises `UserError` naming the first line that is none."""
    votes = []
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                vote = {"question_id": str(row["question_id"]), "model_a": str(row["model_a"]), "model_b": str(row["model_b"]),
                        "winner": WINNERS[row["winner"]], "evaluator": str(row["evaluator"] if "evaluator" in row else row["judge"])}
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path.name}, line {number}: no vote: {type(error).__name__}: {error}",
                                f"give question_id, model_a, model_b, evaluator, and a winner of {', '.join(list(WINNERS)[:4])}") from None
            if vote["model_a"] == vote["model_b"]:
                raise UserError(f"{path.name}, line {number}: {vote['model_a']!r} is compared with itself", "remove the line")
            votes.append(vote)
    return votes


def collect(votes: list[dict[str, str]]) -> list[Ballot]:
    """The votes by comparison: a question and a pair of models, whichever stands first."""
    ballots: dict[tuple[str, str, str], Ballot] = {}
    for vote in votes:
        first, second = sorted((vote["model_a"], vote["model_b"]))
        winner = vote["winner"] if first == vote["model_a"] else SWAPPED.get(vote["winner"], vote["winner"])
        ballot = ballots.setdefault((vote["question_id"], first, second), Ballot(first, second))
        ballot.votes[vote["evaluator"]] = winner
    return list(ballots.values())


def agreement(ballots: list[Ballot]) -> float | None:
    """Share of pairs of evaluators who said the same about a comparison; None where no comparison has two."""
    pairs = [x == y for b in ballots for x, y in itertools.combinations(b.votes.values(), 2)]
    return round(sum(pairs) / len(pairs), 4) if pairs else None


def _pairs(comparisons: list[Comparison]) -> list[dict[str, Any]]:
    """How often each of two models won, and how often neither."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for c in comparisons:
        counts.setdefault((c.model_a, c.model_b), Counter())[c.winner] += 1
    return [{"model_a": a, "model_b": b} | {winner: found[winner] for winner in ("a", "b", "tie", "both_bad")} for (a, b), found in sorted(counts.items())]
