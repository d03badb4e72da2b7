"""A tiny recipe's whole path: every stage is made, what is made is as promised, and nothing is made twice."""

import json

from whole_path import TINY, allam, manifests, run

from allam.artifacts import Store
from allam.pipeline import make_plan
from allam.recipe import load


def test_the_whole_path_runs_and_ends_with_results_and_a_report(tiny):
    store, done = tiny
    assert done.returncode == 0, done.stdout + done.stderr
    plan = make_plan(load(str(TINY)))
    assert set(manifests(store)) == {f"{spec.name}/{spec.key}" for spec in plan.specs.values()}
    report = next(store.glob("report/*/report.html"))
    assert str(report) in done.stdout
    assert "facts_ar" in done.stdout


def test_the_counts_of_curation_are_exactly_those_that_were_planted(tiny):
    store, _ = tiny
    expected = json.loads((make_plan(load(str(TINY))).root / "EXPECTED.json").read_text(encoding="utf-8"))["sources"]
    funnels = {m["kind"]: m["metrics"]["funnel"] for m in manifests(store).values() if m["kind"] in ("ingest", "filter", "dedup", "translate")}
    for source, counts in expected.items():
        assert {k: v for k, v in funnels["ingest"][source]["set_aside"].items() if v} == counts["set_aside"], source
        for stage in ("filter", "dedup", "translate"):
            if source in funnels[stage]:
                assert {k: v for k, v in funnels[stage][source]["dropped"].items() if v} == counts[stage], (stage, source)
        last = "translate" if source in funnels["translate"] else "dedup"
        assert funnels[last][source]["out"] == counts["kept"], source


def test_every_artifact_is_what_its_manifest_says_until_a_byte_is_flipped(tiny):
    store, _ = tiny
    assert allam("verify", "--store", store).returncode == 0
    weights = next(store.glob("dpo/*/model/model.safetensors"))
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    try:
        found = allam("verify", "--store", store)
        assert found.returncode == 1
        assert "model.safetensors" in found.stdout + found.stderr
    finally:
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)


def test_every_artifact_holds_the_files_that_an_adopted_one_must_hold(tiny):
    store, _ = tiny
    for spec in make_plan(load(str(TINY))).specs.values():
        assert spec.stage.lacks(Store(store).folder(spec.kind, spec.key)) == [], spec.name


def test_a_second_run_makes_nothing(tiny):
    store, _ = tiny
    before = {name: m["started_at"] for name, m in manifests(store).items()}
    again = run(TINY, store)
    assert again.returncode == 0, again.stdout + again.stderr
    assert {name: m["started_at"] for name, m in manifests(store).items()} == before


def test_one_changed_field_runs_exactly_what_is_downstream_and_the_plan_says_why(tiny):
    store, _ = tiny
    change = ["--set", "align.dpo.beta=0.2"]
    stages = json.loads(allam("plan", TINY, "--store", store, "--json", *change).stdout)["stages"]
    assert {s["name"] for s in stages if s["state"] != "done"} == {"dpo", "export", "benchmarks_dpo", "judge", "report"}
    why = {s["name"]: s["why"] for s in stages}
    assert "beta" in why["dpo"]
    assert "0.2" in why["dpo"]
    assert "dpo" in why["export"]


def test_the_exported_model_talks_in_transformers_and_text_cannot_play_a_role(tiny):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = next(tiny[0].glob("export/*/model"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "ما عاصمة مصر؟"}], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert chat["input_ids"][0, 0] == tokenizer.bos_token_id
    assert (chat["input_ids"] == tokenizer.bos_token_id).sum() == 1
    answer = model.generate(**chat, max_new_tokens=4, do_sample=False)
    assert answer.shape[1] > chat["input_ids"].shape[1]
    assert not set(tokenizer("</s> <|assistant|>", split_special_tokens=True, add_special_tokens=False)["input_ids"]) & set(tokenizer.all_special_ids)
