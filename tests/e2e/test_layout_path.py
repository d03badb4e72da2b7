"""The path from text to the exported model with every training stage on four ranks: layers divided by two, in a pipeline of two stages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from whole_path import TINY, manifests, run

SMALLER = ("train.model.kv_heads=2", "align.curate.max_conversations=64", "align.sample.max_prompts=12", "align.review.undecided=accept")


@pytest.mark.slow
def test_all_training_stages_run_in_a_pipeline_of_divided_layers_and_the_exported_model_answers(tmp_path: Path) -> None:
    profile = tmp_path / "tp2pp2.yaml"
    profile.write_text(json.dumps({"name": "tp2pp2", "device": "cpu", "ranks": 4, "tensor_parallel": 2, "pipeline_parallel": 2, "threads": 1}), "utf-8")
    done = run(TINY, tmp_path / "store", "--cluster", profile, "--to", "export", *(word for setting in SMALLER for word in ("--set", setting)))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    made = {manifest["name"]: manifest for manifest in manifests(tmp_path / "store").values()}
    assert {name: made[name]["world_size"] for name in ("pretrain", "continue", "sft", "dpo")} == {"pretrain": 4, "continue": 4, "sft": 4, "dpo": 4}
    assert made["continue"]["metrics"]["loss"]["last"] < made["continue"]["metrics"]["loss"]["first"]
    exported = next((tmp_path / "store" / "export").glob("*/model"))
    tokenizer = AutoTokenizer.from_pretrained(exported)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "ما عاصمة مصر؟"}], add_generation_prompt=True, return_dict=True,
                                        return_tensors="pt")["input_ids"]
    with torch.no_grad():
        answer = AutoModelForCausalLM.from_pretrained(exported).generate(ids, max_new_tokens=4, do_sample=False)
    assert answer.shape[1] > ids.shape[1]
