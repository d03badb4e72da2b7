"""Documents that hold an item of a benchmark are dropped, or only marked, so that what evaluation measures was not learnt by heart (paper §4).

    allam stage decontaminate --recipe demo                    natural text
    allam stage decontaminate_translated --recipe demo         translated text, from which translations of dropped documents are gone already

The plan fills in every benchmark that the recipe evaluates and the judge's questions; allam/data/contamination.py says what counts as holding
an item. `contamination.jsonl.zst` names document, benchmark, item and the words that both share, whatever is done about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import orjson

from allam.data.config import DecontaminateConfig
from allam.data.contamination import ItemIndex
from allam.data.drops import Drops, Shards
from allam.data.keep import write_kept
from allam.data.tables import LineWriter, count_rows, read_tables, source_shards, write_whole
from allam.data.tasks import Meter, run_tasks
from allam.files import check_file
from allam.items import Item, read_items

CONTAMINATION = "contamination.jsonl.zst"


def run(config: DecontaminateConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Searches the documents of `inputs["documents"]` for the items, whose files lie below `inputs["root"]`."""
    work = out / "work"
    shards = source_shards(inputs["documents"] / "documents", config.order)
    drops, searched = Drops(shards, work), config.action != "skip"
    index = _index(config.model_dump_json(), inputs["root"]) if searched else None  # a file of items that can't be read fails before the first document
    if searched:
        run_tasks(work, "search", partial(_search_shard, config, inputs["root"], shards, work), len(shards), unit="documents",
                  total=sum(count_rows(path) for _, path in shards), size=sum(path.stat().st_size for _, path in shards))
    counts = {} if index is None else {name: {"items": index.looked_for.get(name, 0), "too_short": index.untold.get(name, 0), "documents": 0}
                                       for name in config.items}
    items: dict[str, set[str]] = {name: set() for name in counts}
    with LineWriter(out / CONTAMINATION) as lines:
        for shard in range(len(shards) if searched else 0):
            last: dict[str, int] = {}  # the last document in which an item of the benchmark was found
            for row, line in _found(work, shard):
                if line["dropped"] and row not in last.values():
                    drops.add(shard, row, "contaminated", f"{line['benchmark']} {line['item']}: {line['words']}")
                counts[line["benchmark"]]["documents"] += last.get(line["benchmark"]) != row
                last[line["benchmark"]] = row
                items[line["benchmark"]].add(line["item"])
                lines.write(line)
    found = {name: {**count, "found": len(items[name])} for name, count in counts.items()}
    return {**write_kept(out, shards, config.order, drops), "benchmarks": found}


@cache
def _index(config_json: str, root: Path) -> ItemIndex:
    """One index a process. A bilingual file is looked for in both of its languages."""
    config = DecontaminateConfig.model_validate_json(config_json)
    items: dict[tuple[str, Item], None] = {}  # a set in order: other formats give the same item for both languages
    for name, benchmark in config.items.items():
        for file in benchmark.files:
            for language in ("en", "ar"):
                found = read_items(check_file(root, file), benchmark.format, language, _check)
                items |= dict.fromkeys((name, item) for item in found if not item.is_example)
    return ItemIndex(items, config.ngram_words, config.min_words)


def _check(item: Item) -> None:
    assert isinstance(item.answer_text, str)  # raises where the answer is none of the choices


def _search_shard(config: DecontaminateConfig, root: Path, shards: Shards, work: Path, task: int, meter: Meter) -> None:
    """Leaves [row, what is told of it] for each item found in each document."""
    source, path = shards[task]
    index, drop, start, found = _index(config.model_dump_json(), root), config.action == "drop" and source not in config.mark_only, 0, []
    for table in read_tables(path, ["id", "text"]):
        names = table["id"].to_pylist()
        for hit in index.search(table["text"].to_pylist()):
            found.append([start + hit.text, {"document": names[hit.text], "source": source, "benchmark": hit.benchmark, "item": hit.item,
                                             "words": hit.words, "dropped": drop}])
        start += table.num_rows
        meter.add(table.num_rows)
    write_whole(_found_path(work, task), b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in found))


def _found_path(work: Path, shard: int) -> Path:
    return work / "found" / f"{shard:05d}.jsonl"


def _found(work: Path, shard: int) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(_found_path(work, shard), "rb") as file:
        for line in file:
            yield orjson.loads(line)
