"""The whole path from a base that has a tokenizer.json only: imported, extended, trained on, finetuned, evaluated, exported."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from whole_path import TINY, manifests, run

sys.path.append(str(Path(__file__).parents[1] / "chat"))
from byte_bases import write_base

from allam.engine.model import new_model, save_model
from allam.sample import root
from allam.text.byte_level import ByteLevelTokenizer


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama3", "qwen"])
def test_a_byte_level_base_goes_the_whole_path(tmp_path: Path, kind: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for entry in root().iterdir():
        (data / entry.name).symlink_to(entry)
    tokenizer = ByteLevelTokenizer.load(write_base(data / "base", kind))
    config = LlamaConfig(vocab_size=tokenizer.vocab_size + 7, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                         num_key_value_heads=1, max_position_embeddings=512, bos_token_id=tokenizer.bos_id, eos_token_id=tokenizer.eos_id)
    model = new_model(config, seed=0)
    save_model(data / "base", config, [(name, p.detach()) for name, p in model.named_parameters()], data / "elsewhere")
    done = run(TINY, tmp_path / "store", *(word for setting in (
        f"data.root={data}", "tokenizer.base.model=base", "train.pretrain=null", "train.import_model={model: base}", "train.extend.base_padding_rows=7",
        "tokenizer.merged.max_unmet_share=0.3") for word in ("--set", setting)))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    made = {manifest["name"]: manifest for manifest in manifests(tmp_path / "store").values()}
    assert {"merged_tokenizer", "extend", "continue", "sft", "dpo", "export", "benchmarks_dpo", "benchmarks_import_model", "report"} <= made.keys()
    exported = next((tmp_path / "store" / "export").glob("*/model"))
    theirs, ours = AutoTokenizer.from_pretrained(exported), ByteLevelTokenizer.load(exported)
    chat = [{"role": "user", "content": "ما عاصمة مصر؟"}]
    ids = theirs.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")["input_ids"]
    assert ids[0].tolist().count(ours.bos_id) == 1
    with torch.no_grad():
        answer = AutoModelForCausalLM.from_pretrained(exported).generate(ids, max_new_tokens=8, do_sample=False)
    assert set(answer[0, ids.shape[1]:].tolist()).isdisjoint(ours.padding)
    assert json.loads((exported / "config.json").read_text())["vocab_size"] == ours.vocab_size
