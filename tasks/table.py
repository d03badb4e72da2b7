"""Which task runs which kind of stage."""

from tasks import align, data, evaluation, tokenizer, train
from tasks.stage import StageTask

TASKS: dict[str, StageTask] = {
    stage.name: stage
    for stage in (
        data.ingest, data.filter, data.dedup, data.decontaminate, data.machine_translate, data.translate,
        tokenizer.base_tokenizer, tokenizer.arabic_tokenizer, tokenizer.merged_tokenizer, tokenizer.fertility,
        train.pack, train.mix, train.import_model, train.pretrain, train.extend, train.continue_, train.export,
        align.curate, align.sft, align.sample, align.review, align.dpo,
        evaluation.benchmarks, evaluation.judge, evaluation.votes, evaluation.report,
    )
}
