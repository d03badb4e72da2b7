"""From raw text to a curated corpus (paper §2.1): ingest, filter, dedup, translate."""
