"""The tasks of the area `eval` (paper §4) and the report."""

from tasks.stage import stage_task

benchmarks = stage_task("benchmarks", "Benchmarks in both languages and bits per byte of one model.")
judge = stage_task("judge", "Open questions, scored by a judge model or against reference answers.")
votes = stage_task("votes", "Elo ratings from people's votes.")
report = stage_task("report", "The HTML report of all of it.")
