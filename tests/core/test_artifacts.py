"""Artifacts: their keys, their manifests, and what a crash at any moment leaves."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from allam import artifacts
from allam.artifacts import Manifest, Store, artifact_key, canonical_json, checksum_outputs, commit, folder_lock, is_being_made, read_manifest, write_atomic
from allam.errors import ArtifactError, UserError

CONFIG = {"min_words": 30, "note": "ثلاثون كلمة"}
JOB = {"name": "filter", "kind": "filter", "version": 1, "config": CONFIG, "inputs": {}, "key": artifact_key("filter", 1, CONFIG, {})}
TEXT = "الرياض عاصمة المملكة العربية السعودية.\nRiyadh is the capital of Saudi Arabia.\n"


def make(folder: Path) -> None:
    """A small artifact, made the way the worker makes one."""
    artifacts.write_json(folder / "job.json", JOB)
    artifacts.clear_outputs(folder)
    (folder / "work").mkdir(exist_ok=True)
    write_atomic(folder / "documents" / "web" / "0.jsonl", TEXT)
    write_atomic(folder / "statistics.json", "{}\n")
    commit(folder, Manifest(**JOB, outputs=checksum_outputs(folder), metrics={"kept": 2, "share": 0.5}, started_at="2026-01-01T00:00:00+00:00", seconds=1.5,
                            peak_memory_bytes=1, world_size=1, versions={}))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def folder(store: Store) -> Path:
    return store.folder("filter", JOB["key"])


def test_a_key_does_not_depend_on_the_order_of_fields():
    assert artifact_key("filter", 1, {"a": 1, "b": 2}, {"x": "1", "y": "2"}) == artifact_key("filter", 1, {"b": 2, "a": 1}, {"y": "2", "x": "1"})


def test_every_part_of_what_makes_an_artifact_is_in_its_key():
    keys = {artifact_key("filter", 1, {"a": 1}, {}), artifact_key("dedup", 1, {"a": 1}, {}), artifact_key("filter", 2, {"a": 1}, {}),
            artifact_key("filter", 1, {"a": 2}, {}), artifact_key("filter", 1, {"a": 1}, {"documents": "0"}), artifact_key("filter", 1, {"a": "1"}, {})}
    assert len(keys) == 6


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), float("inf"), {1: "a"}, b"bytes", object(), Path("x")])
def test_what_has_no_single_spelling_has_no_key(value):
    with pytest.raises(TypeError, match=r"value\.field"):
        canonical_json({"field": value})


def test_an_artifact_is_done_when_its_manifest_stands_and_its_scratch_is_gone(store, folder):
    make(folder)
    manifest = store.manifest("filter", JOB["key"])
    assert manifest is not None
    assert sorted(manifest.outputs) == ["documents/web/0.jsonl", "statistics.json"]
    assert not (folder / "work").exists()
    assert store.verify(folder) == []




def counting(monkeypatch: pytest.MonkeyPatch, action) -> list[str]:
    """Lets `action(n)` run before each call that changes the disk; returns the list that they are noted in."""
    calls: list[str] = []

    def wrap(name, original):
        def wrapped(*args, **kwargs):
            calls.append(name)
            action(len(calls))
            return original(*args, **kwargs)
        return wrapped

    for name in ("fsync", "replace"):
        monkeypatch.setattr(artifacts.os, name, wrap(name, getattr(os, name)))
    monkeypatch.setattr(artifacts.shutil, "rmtree", wrap("rmtree", artifacts.shutil.rmtree))
    real_open = open

    def opened(path, mode="r", *args, **kwargs):
        if "w" in mode or "a" in mode:
            calls.append("open")
            action(len(calls))
        return real_open(path, mode, *args, **kwargs)

    monkeypatch.setattr(artifacts, "open", opened, raising=False)
    return calls


def test_a_fault_at_any_write_leaves_nothing_that_looks_done_and_the_next_run_mends_it(tmp_path):
    clean = Store(tmp_path / "clean")
    make(clean.folder("filter", JOB["key"]))
    expected = clean.manifest("filter", JOB["key"])
    n = 0
    while True:
        n += 1
        place = Store(tmp_path / str(n))
        folder = place.folder("filter", JOB["key"])

        def fail(count, n=n):
            if count == n:
                raise OSError(28, "No space left on device")

        with pytest.MonkeyPatch.context() as patch:
            calls = counting(patch, fail)
            try:
                make(folder)
                survived = True
            except OSError:
                survived = False
        found = place.manifest("filter", JOB["key"])
        if found is not None:
            assert place.verify(folder) == [], f"after a fault at {calls[n - 1]} number {n}"
        else:
            make(folder)
        assert place.manifest("filter", JOB["key"]).outputs == expected.outputs
        assert not list(folder.rglob("*.tmp"))
        if survived and len(calls) < n:
            break
    assert n > 12


def test_a_kill_at_any_write_leaves_nothing_that_looks_done_and_the_next_run_mends_it(tmp_path):
    n = 0
    while True:
        n += 1
        place = Store(tmp_path / str(n))
        folder = place.folder("filter", JOB["key"])
        child = os.fork()
        if child == 0:
            counting(pytest.MonkeyPatch(), lambda count, n=n: os._exit(9) if count == n else None)
            make(folder)
            os._exit(0)
        survived = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        if place.manifest("filter", JOB["key"]) is not None:
            assert place.verify(folder) == [], n
        make(folder)
        assert place.verify(folder) == []
        if survived:
            break
    assert n > 12


def test_verify_finds_a_single_flipped_bit_in_any_byte_of_an_artifact(store, folder):
    make(folder)
    for relative in ("documents/web/0.jsonl", "statistics.json", "manifest.json"):
        content = (folder / relative).read_bytes()
        for position in range(len(content)):
            changed = bytearray(content)
            changed[position] ^= 1 << position % 8
            (folder / relative).write_bytes(bytes(changed))
            assert store.verify(folder), f"byte {position} of {relative}"
        (folder / relative).write_bytes(content)
    assert store.verify(folder) == []


def test_verify_names_missing_and_additional_files_and_a_changed_job(store, folder):
    make(folder)
    (folder / "statistics.json").unlink()
    (folder / "more.txt").write_text("?")
    artifacts.write_json(folder / "job.json", JOB | {"version": 2})
    assert store.verify(folder) == ["job.json: version differs from the manifest's", "statistics.json: missing", "more.txt: not in the manifest"]


def test_a_damaged_manifest_is_an_error_with_a_remedy_and_never_done(store, folder):
    make(folder)
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text().replace('"kept": 2', '"kept": 3'))
    with pytest.raises(ArtifactError, match="its own checksum") as caught:
        store.manifest("filter", JOB["key"])
    assert "remove this folder" in caught.value.remedy


def _write_many(folder: Path, turns: int) -> None:
    for _ in range(turns):
        with folder_lock(folder):
            if read_manifest(folder) is None:
                make(folder)
                count = folder.parent / "made"
                count.write_text(count.read_text() + "x" if count.exists() else "x")


def test_two_writers_of_one_key_make_it_once(store, folder):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(folder, 5)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (folder.parent / "made").read_text() == "x"
    assert store.verify(folder) == []


def test_the_kernel_releases_the_lock_of_a_killed_holder(folder):
    child = os.fork()
    if child == 0:
        with folder_lock(folder):
            (folder / "held").touch()
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert (folder / "held").exists()
    assert not is_being_made(folder)


def test_withdrawing_an_artifact_leaves_its_log_and_nothing_else(store, folder):
    make(folder)
    (folder / "log.txt").write_text("made\n")
    artifacts.withdraw(folder)
    assert sorted(p.name for p in folder.iterdir()) == [".lock", "job.json", "log.txt"]
    assert store.manifest("filter", JOB["key"]) is None


def test_find_takes_the_first_digits_and_names_what_it_could_mean(store, folder):
    make(folder)
    assert store.find(JOB["key"][:5]) == folder
    assert store.find(f"filter/{JOB['key'][:5]}") == folder
    with pytest.raises(UserError, match="no artifact 'ffff'"):
        store.find("ffff")
    artifacts.write_json(store.folder("dedup", JOB["key"]) / "job.json", JOB)
    with pytest.raises(UserError, match="fits 2 artifacts"):
        store.find(JOB["key"][:5])


def test_adopting_copies_files_and_says_where_from(store, folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "tokenizer.model").write_bytes(b"pieces")
    manifest = Manifest(**JOB, outputs={}, metrics={}, started_at="2026-01-01T00:00:00+00:00", seconds=0, peak_memory_bytes=0, world_size=1, versions={})
    adopted = artifacts.adopt(tmp_path / "elsewhere", folder, manifest, JOB)
    assert adopted.adopted_from == str(tmp_path / "elsewhere")
    assert store.manifest("filter", JOB["key"]) == adopted
    assert json.loads((folder / "job.json").read_text())["key"] == JOB["key"]
    with pytest.raises(UserError, match="done already"):
        artifacts.adopt(tmp_path / "elsewhere", folder, manifest, JOB)
