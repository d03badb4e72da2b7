"""Tokens by licence, from the pack; before there is one, documents and bytes by licence of the corpus: `allam data licences RECIPE`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from allam.documents import shards


def bytes_by_licence(corpora: Sequence[Path]) -> list[dict[str, Any]]:
    """{"licence", "component", "documents", "bytes"} over folders of documents, the largest first."""
    sums: dict[tuple[str | None, str], list[int]] = {}
    for path in (path for corpus in corpora for path in shards(corpus / "documents")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["licence", "language", "kind", "text"]):
                table = pa.Table.from_batches([batch])
                table = table.append_column("bytes", pc.cast(pc.binary_length(table["text"]), "int64"))
                for row in table.group_by(["licence", "language", "kind"]).aggregate([("bytes", "count"), ("bytes", "sum")]).to_pylist():
                    component = row["language"] if row["kind"] == "natural" else f"{row['language']}_translated"
                    found = sums.setdefault((row["licence"], component), [0, 0])
                    found[0] += row["bytes_count"]
                    found[1] += row["bytes_sum"]
    return [{"licence": licence, "component": component, "documents": documents, "bytes": size}
            for (licence, component), (documents, size) in sorted(sums.items(), key=lambda entry: -entry[1][1])]
