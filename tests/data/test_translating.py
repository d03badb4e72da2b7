"""Documents translated by a model: what stays as it is, sentences that are kept once translated, and both kinds of translators, for real."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import translating_models
from data_stages import checksums, stage
from hypothesis import given, settings
from hypothesis import strategies as st

from allam.cluster import ClusterProfile
from allam.data.config import MachineTranslateConfig
from allam.data.segments import Sentence, assemble, parts_to_translate, segment
from allam.data.sentence_cache import SentenceCache
from allam.documents import Document, read_documents, shard_path, write_documents
from allam.errors import StageFailed, UserError
from allam.files import FileTable
from allam.pipeline import make_plan
from allam.recipe import load

TEXT = """# The old market

Dr. Smith came at 3.15 p.m. on Jan. 5. He paid $5 and $6; so $x^2 + 1$ is a formula. See https://e.com/a?b=1, or ask me@e.com!

```python
print("Hello. World.")
```
- First item. It is short.
  2. Run `make demo` now.

$$ a = b $$
12 + 30 = 42
"""


# --- segments -------------------------------------------------------------------------------------------------------------------

def sentences_of(text: str, longest: int = 500) -> list[str]:
    return [piece.text for piece in segment(text, longest)[0] if isinstance(piece, Sentence)]


def test_code_formulas_addresses_and_figures_are_no_sentences() -> None:
    assert sentences_of(TEXT) == ["The old market", "Dr. Smith came at 3.15 p.m. on Jan. 5.", "He paid $5 and $6; so %1 is a formula.", "See %1, or ask %2!",
                                  "First item.", "It is short.", "Run %1 now."]


def test_lines_lists_and_what_is_kept_stand_where_they_stood() -> None:
    pieces, _ = segment(TEXT, 500)
    made, mended = assemble(pieces, {text: "نص " + " ".join(f"%{n}" for n in (1, 2) if f"%{n}" in text) for text in sentences_of(TEXT)})
    assert mended == 0
    assert made.split("\n") == [
        "# نص ", "", "نص  نص $x^2 + 1$ نص https://e.com/a?b=1 me@e.com", "", "```python", 'print("Hello. World.")', "```", "- نص  نص ",
        "  2. نص `make demo`", "", "$$ a = b $$", "12 + 30 = 42", ""]


def test_a_sentence_whose_marks_are_lost_is_translated_in_parts() -> None:
    pieces, _ = segment("Open `a.txt`, then `b.txt` please.", 500)
    (sentence,) = (piece for piece in pieces if isinstance(piece, Sentence))
    assert parts_to_translate(sentence) == ["Open", ", then", "please."]
    parts = {"Open": "افتح", ", then": "ثم", "please.": "رجاءً."}
    for answer in ("افتح ثم رجاءً", "%1 %1 %2", "%1 %2 %3", "% 1 %2"):
        assert assemble(pieces, {sentence.text: answer} | parts) == ("افتح `a.txt`ثم `b.txt` رجاءً.", 1)
    assert assemble(pieces, {sentence.text: "%2 قبل %1"} | parts) == ("`b.txt` قبل `a.txt`", 0)


def test_lines_broken_to_fit_a_width_are_one_paragraph_and_verses_are_none() -> None:
    broken = ("The path along the river is open again after the long repair, and\npeople who like to walk can now reach the old mill before the sun\n"
              "goes down. It is a fine walk.\n\nRoses are red,\nviolets are blue.")
    assert sentences_of(broken) == [
        "The path along the river is open again after the long repair, and people who like to walk can now reach the old mill before the sun goes down.",
        "It is a fine walk.", "Roses are red,", "violets are blue."]


def test_a_sentence_of_the_longest_length_is_whole_and_a_longer_one_is_cut_at_a_comma_or_a_space() -> None:
    text = "We went to the market, and then we came home."
    assert segment(text, len(text)) == ([Sentence(text)], 0)
    pieces, cut = segment(text, len(text) - 1)
    assert cut == 1
    assert [piece.text for piece in pieces if isinstance(piece, Sentence)] == ["We went to the market,", "and then we came home."]
    assert segment("a" * 50, 20)[1] == 1
    assert all(len(sentence) <= 20 for sentence in sentences_of("word " * 40 + "a" * 50, 20))


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("aZ .,!?\n`$#-%1\\[]()<>/:@e\t~*|{}٣س\ue000"), max_size=44), st.integers(20, 40))
def test_a_text_whose_sentences_come_back_unchanged_comes_back_whole(text: str, longest: int) -> None:
    pieces, _ = segment(text, longest)
    assert assemble(pieces, {piece.text: piece.text for piece in pieces if isinstance(piece, Sentence)}) == (text, 0)


# --- the cache ------------------------------------------------------------------------------------------------------------------

def test_a_sentence_keeps_its_first_translation(tmp_path: Path) -> None:
    many = {f"sentence {i}": f"جملة {i}" for i in range(1200)}
    with SentenceCache(tmp_path / "c.sqlite") as cache, SentenceCache(tmp_path / "c.sqlite") as other:
        cache.add(many)
        other.add([("sentence 7", "أخرى")])
        assert other.find([*many, "new"]) == many


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(StageFailed, match=r"c\.sqlite: file is not a database"):
        SentenceCache(tmp_path / "c.sqlite")


# --- the stage ------------------------------------------------------------------------------------------------------------------

def english(base: Path) -> Path:
    """Two shards of a source, with titles and a shared sentence."""
    lines = translating_models.ENGLISH
    texts = ["\n\n".join(lines[:2]), f"{lines[2]} {lines[3]}\n- {lines[0]}", "```\ncode only\n```", lines[4]]
    documents = [Document(f"e{i}", text, "web_en", "en", "web", "natural", url=f"http://e.com/{i}", title="The old market" if i == 1 else None,
                          date="2024-05-06", licence="CC0") for i, text in enumerate(texts)]
    write_documents(shard_path(base / "documents", "web_en", 0), documents[:2])
    write_documents(shard_path(base / "documents", "web_en", 1), documents[2:])
    write_documents(shard_path(base / "documents", "web_ar", 0), [Document("a", "نص", "web_ar", "ar", "web", "natural")])
    return base


def run(tmp_path: Path, name: str, **fields: Any) -> tuple[dict[str, Any], Path]:
    """The stage in <tmp>/<name>/stage/<key>; returns its metrics and that folder."""
    config = MachineTranslateConfig(**{"domains": ("web",), "order": ("web_en",), "max_sentence_chars": 100, "beams": 2} | fields)
    out = tmp_path / name / "stage" / f"key of {config.beams} beams"
    return stage("machine_translate", config, {"documents": english(tmp_path / "in"), "root": tmp_path}, out), out


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return translating_models.marian(tmp_path_factory.mktemp("models") / "marian")


def test_marian_translates_sentence_by_sentence_and_a_batchs_size_changes_nothing(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").symlink_to(model)
    results = []
    for size in (1, 3, 16):
        monkeypatch.setenv("ALLAM_CLUSTER", ClusterProfile(micro_batch=size, threads=1, device="cpu").model_dump_json())
        metrics, out = run(tmp_path, f"batch{size}", model="m")
        results.append((metrics, checksums(out)))
    assert results[0] == results[1] == results[2]
    first, second, code, _ = read_documents(out / "documents")
    assert first == Document("e0-ar", first.text, "web_en_to_ar", "ar", "web", "translated", date="2024-05-06", licence="CC0", translation_of="e0")
    assert [bool(line) for line in first.text.split("\n")] == [True, False, True]
    assert second.text.split("\n")[1] == "- " + first.text.split("\n")[0]  # the same sentence in another shard's company
    assert second.title
    assert code.text == "```\ncode only\n```"
    assert metrics["funnel"] == {"web_en_to_ar": {"in": 4, "out": 4, "dropped": {}, "set_aside": {}}}
    assert metrics["translated"] == {"sentences": 7, "cut": 0, "mended": 0, "empty": 0}


def test_what_was_translated_before_needs_no_model(tmp_path: Path, model: Path) -> None:
    (tmp_path / "m").symlink_to(model)
    _, first = run(tmp_path, "one", model="m")
    (tmp_path / "m").unlink()
    again = first.with_name("another key")
    config = MachineTranslateConfig(domains=("web",), order=("web_en",), max_sentence_chars=100, beams=2, model="m", max_documents=3)
    stage("machine_translate", config, {"documents": tmp_path / "in", "root": tmp_path}, again)
    assert [d.text for d in read_documents(again / "documents")] == [d.text for d in read_documents(first / "documents")][:3]
    with pytest.raises(UserError, match=r"machine_translate\.model 'm' has no config\.json"):  # other beams, other translations
        run(tmp_path, "one", model="m", beams=1)


def test_a_model_whose_checksum_is_not_the_plans_is_refused(tmp_path: Path) -> None:
    model = translating_models.marian(tmp_path / "m")
    files = FileTable(tmp_path).resolve("data.machine_translate.model", "m")
    (model / "vocab.json").write_text("{}")
    with pytest.raises(UserError, match=r"vocab\.json"):
        run(tmp_path, "x", model="m", files=files)


def test_a_pickle_in_place_of_weights_never_runs(tmp_path: Path) -> None:
    folder = translating_models.marian(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(str(tmp_path / "ran"))))
    with pytest.raises(UserError, match="can't be loaded"):
        run(tmp_path, "x", model="m")
    assert not (tmp_path / "ran").exists()


class Canary:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_too_long_sentences_and_unknown_languages_are_refused(tmp_path: Path) -> None:
    translating_models.marian(tmp_path / "m", codes=(">>ara<<", ">>fra<<"))
    with pytest.raises(UserError, match="takes 128 tokens") as error:
        run(tmp_path, "x", model="m", max_sentence_chars=127)
    assert error.value.remedy.endswith("max_sentence_chars to 126 or less")
    with pytest.raises(UserError, match=r"has no language '>>arz<<'; it knows >>ara<<, >>fra<<"):
        run(tmp_path, "x", model="m", target_code=">>arz<<")
    assert run(tmp_path, "x", model="m")[0]["translated"]["sentences"] == 7


@pytest.mark.parametrize(("family", "mark", "first"), [("m2m_100", "__en__", "__ar__"), ("nllb", "eng_Latn", "arb_Arab"), ("madlad", "<2ar>", None)])
def test_each_family_is_told_the_languages_in_its_own_way(tmp_path: Path, family: str, mark: str, first: str | None) -> None:
    from allam.data.seq2seq import Seq2SeqTranslator

    getattr(translating_models, family)(tmp_path / "m")
    translator = Seq2SeqTranslator(MachineTranslateConfig(domains=("web",), model="m", max_sentence_chars=100), tmp_path)
    found = dict(pair for batch in translator.batches(translating_models.ENGLISH) for pair in batch)
    assert sorted(found) == sorted(translating_models.ENGLISH)
    tokenizer, ids = translator._loaded.tokenizer, translator._loaded.encode("My </s> sister reads")
    assert ids[0] == tokenizer.convert_tokens_to_ids(mark)
    assert [i for i in ids if i == tokenizer.eos_token_id] == ids[-1:] == [tokenizer.eos_token_id]
    assert translator._loaded.first == (tokenizer.convert_tokens_to_ids(first) if first else None)
    (other,) = (pair for batch in translator.batches(["My sister reads a new book every week."]) for pair in batch)
    assert other[1] == found[other[0]]


# --- the plan -------------------------------------------------------------------------------------------------------------------

def test_nothing_is_translated_unless_the_recipe_asks() -> None:
    assert "machine_translate" not in make_plan(load("demo")).specs


def test_chosen_domains_of_english_are_translated_from_what_the_curation_kept_and_checked_as_other_translations_are() -> None:
    specs = make_plan(load("demo", ["data.machine_translate.domains=[science, books]", "data.machine_translate.model=documents"])).specs
    made, checked, last = (specs[name] for name in ("machine_translate", "translate", "decontaminate_translated"))
    assert (made.config_data["order"], made.inputs) == (["books_en", "science_en"], {"documents": "decontaminate"})
    assert made.config_data["files"]
    assert checked.inputs["machine"] == "machine_translate"
    assert checked.config_data["order"][-2:] == last.config_data["order"][-2:] == ["books_en_to_ar", "science_en_to_ar"]


def test_a_domain_without_english_and_a_source_of_the_same_name_are_refused() -> None:
    with pytest.raises(UserError, match="no English source is of the domains news"):
        make_plan(load("demo", ["data.machine_translate.domains=[news]", "data.machine_translate.model=documents"]))
    with pytest.raises(UserError, match=r"data\.sources\.web_en_to_ar"):
        make_plan(load("demo", ["data.machine_translate.domains=[web]", "data.machine_translate.model=documents",
                                "data.sources.web_en_to_ar={path: documents/wiki_ar.jsonl, language: ar, domain: wiki}"]))


def test_the_plan_warns_of_translated_text_whose_english_is_not_in_the_mix() -> None:
    wiki, other = make_plan(load("demo")).warnings
    assert "translated wiki text" in wiki
    assert "translated other text" in other
    kept = "train.continue.mix.domains.en={web: 0.31, books: 0.09, science: 0.16, code: 0.34, math: 0.05, wiki: 0.03, other: 0.02}"
    assert make_plan(load("demo", [kept])).warnings == []
    (science,) = make_plan(load("demo", [kept.replace("science: 0.16, code: 0.34", "code: 0.5")])).warnings
    assert "translated science text" in science


# --- an endpoint ----------------------------------------------------------------------------------------------------------------

class Server:
    """An OpenAI-compatible server that answers in capitals; at the `fatal`-th request it kills the process that asks."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.keys: set[str] = set()
        self.fatal: int | None = None
        self.victim = 0
        server, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.keys.add(self.headers["Authorization"])
                    server.asked.append(body["messages"][-1]["content"])
                    if server.fatal is not None and len(server.asked) >= server.fatal:
                        os.kill(server.victim, signal.SIGKILL)
                        return
                answer = json.dumps({"choices": [{"message": {"content": "جملة\n " + body["messages"][-1]["content"].upper()}}]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.http.shutdown()


def test_an_endpoint_is_asked_once_a_sentence_with_its_own_key(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLAM_TRANSLATE_KEY", "canary-key")
    monkeypatch.setenv("ALLAM_JUDGE_KEY", "another")
    metrics, out = run(tmp_path, "x", endpoint=server.url, endpoint_model="m")
    assert sorted(server.asked) == sorted([*translating_models.ENGLISH, "The old market"])
    assert server.keys == {"Bearer canary-key"}
    assert next(iter(read_documents(out / "documents"))).text.split("\n")[2] == "جملة " + translating_models.ENGLISH[1].upper()
    assert metrics["translated"]["sentences"] == 7
    assert not [path for path in (tmp_path / "x").rglob("*") if path.is_file() and b"canary-key" in path.read_bytes()]


def test_a_stage_killed_within_a_shard_asks_only_for_the_rest(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLAM_CLUSTER", ClusterProfile(micro_batch=2).model_dump_json())
    whole = run(tmp_path, "whole", endpoint=server.url, endpoint_model="m")
    config = MachineTranslateConfig(domains=("web",), order=("web_en",), max_sentence_chars=100, beams=2, endpoint=server.url, endpoint_model="m")
    (tmp_path / "config.json").write_text(config.model_dump_json())
    script = ("import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
              "from data_stages import stage; from allam.data.config import MachineTranslateConfig\n"
              "base = Path(sys.argv[2])\n"
              "config = MachineTranslateConfig.model_validate_json((base / 'config.json').read_text())\n"
              "stage('machine_translate', config, {'documents': base / 'in', 'root': base}, base / 'killed' / 'stage' / 'key of 2 beams')")
    server.asked, server.fatal = [], 4
    process = subprocess.Popen([sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path)])
    server.victim = process.pid
    assert process.wait() == -signal.SIGKILL
    (cache,) = (tmp_path / "killed" / "stage").glob("*.sqlite")
    with sqlite3.connect(cache) as file:
        kept = file.execute("SELECT count(*) FROM sentences").fetchone()[0]
    assert 0 < kept < 5  # killed within the first shard, which has five sentences
    server.asked, server.fatal = [], None
    metrics, out = run(tmp_path, "killed", endpoint=server.url, endpoint_model="m")
    assert len(server.asked) == 6 - kept
    assert (metrics, checksums(out)) == (whole[0], checksums(whole[1]))
