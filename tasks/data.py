"""The tasks of the area `data` (paper §2.1)."""

from tasks.stage import stage_task

ingest = stage_task("ingest", "Reads raw files into the one document schema; sets aside what can't be read.")
filter = stage_task("filter", "Drops documents by language, length, spam and stop words, each with its reason.")
dedup = stage_task("dedup", "Drops duplicate URLs and exact duplicates; finds near duplicates where the recipe asks.")
decontaminate = stage_task("decontaminate", "Drops documents that hold items of the benchmarks that the recipe evaluates.")
machine_translate = stage_task("machine_translate", "Translates English documents of chosen domains, sentence by sentence.")
translate = stage_task("translate", "Checks translated text against its English source, and keeps the link to it.")
