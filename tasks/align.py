"""The tasks of the area `align` (paper §3)."""

from tasks.stage import stage_task

curate = stage_task("curate", "Checks the quality of conversations for supervised finetuning.")
sft = stage_task("sft", "Supervised finetuning, with the prompt masked.", retry_delay_seconds=30)
sample = stage_task("sample", "Samples responses from the model at several temperatures and nucleus sizes.")
review = stage_task("review", "People's decisions on preference pairs: accept, edit, reject.")
dpo = stage_task("dpo", "Direct preference optimisation.", retry_delay_seconds=30)
