"""The tasks of the area `train` (paper §2.2 and 2.3)."""

from tasks.stage import stage_task

pack = stage_task("pack", "Tokenizes the corpus once, by language and domain; keeps held-out documents apart.")
mix = stage_task("mix", "An index over the packs by the shares of languages and domains, with a ledger of tokens and epochs.")
import_model = stage_task("import_model", "Takes in an existing base model.")
pretrain = stage_task("pretrain", "Pretrains an English base model, which stands in for Llama 2.", retry_delay_seconds=30)
extend = stage_task("extend", "Gives the new tokens embeddings: the mean of the old tokens that they were made of.")
continue_ = stage_task("continue", "Continues pretraining on English and Arabic.", retry_delay_seconds=30)
export = stage_task("export", "The aligned model as a folder for transformers.")
