"""Sources by URL: found, hashed once, read as a stream that is checked; what could leave the data root, the network's rules or the plan is refused."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_stages import ingest

from allam import remote
from allam.data.config import SourceConfig
from allam.data.readers import Raw, read_records
from allam.documents import read_documents
from allam.errors import StageFailed, UserError
from allam.files import MISSING, FileTable, check_checksum, check_source
from allam.remote import RemoteFile

LINES = "".join(json.dumps({"id": f"d{i}", "text": f"Line {i} of the file."}) + "\n" for i in range(2000)).encode()
COMMIT = "0123456789abcdef" * 2 + "01234567"


class Quiet(http.server.SimpleHTTPRequestHandler):
    requests: list[str]

    def do_GET(self) -> None:
        self.server.requests.append(f"GET {self.path}")  # type: ignore[attr-defined]
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest/meta-data")
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A web server of a folder: its address, the folder, and the requests that it answered."""
    folder = tmp_path / "served"
    folder.mkdir()
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    running.requests = []  # type: ignore[attr-defined]
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", folder, running.requests  # type: ignore[attr-defined]
    running.shutdown()
    running.server_close()


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(remote.ALLOW_PRIVATE, "1")


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def resolve(root: Path, url: str, cache: Path | None = None) -> tuple[tuple[Any, ...], list[tuple[str, str]]]:
    table = FileTable(root, cache)
    found = table.resolve("data.sources.s.path", url, urls=True)
    table.save()
    return found, table.problems


def read(place: RemoteFile) -> list[Any]:
    return list(read_records("s", SourceConfig(path="x", language="en", domain="web"), place, 1_000_000, lambda n: None))


def test_a_file_of_a_web_server_is_hashed_at_the_plan_and_read_as_a_stream(server: Any, allowed: None, tmp_path: Path) -> None:
    address, folder, requests = server
    (folder / "a.jsonl").write_bytes(LINES)
    metrics = ingest(tmp_path, tmp_path / "out", path=f"{address}/a.jsonl")
    assert metrics["funnel"]["s"]["out"] == 2000
    assert next(iter(read_documents(tmp_path / "out/documents"))).id == "d0"
    assert requests.count("GET /a.jsonl") == 2  # the plan's hash, and the reading


def test_the_checksum_is_remembered_for_as_long_as_the_server_names_the_same_version(server: Any, allowed: None, tmp_path: Path) -> None:
    address, folder, requests = server
    (folder / "a.jsonl").write_bytes(LINES)
    (first,), _ = resolve(tmp_path, f"{address}/a.jsonl", tmp_path / "cache.json")
    assert (first.sha256, first.size) == (hashlib.sha256(LINES).hexdigest(), len(LINES))
    asked = len(requests)
    assert resolve(tmp_path, f"{address}/a.jsonl", tmp_path / "cache.json")[0] == (first,)
    assert len(requests) == asked
    (folder / "a.jsonl").write_bytes(LINES * 2)
    (second,), _ = resolve(tmp_path, f"{address}/a.jsonl", tmp_path / "cache.json")
    assert second.size == 2 * first.size


def test_parquet_and_packed_files_are_read_from_a_web_server(server: Any, allowed: None, tmp_path: Path) -> None:
    address, folder, _ = server
    pq.write_table(pa.table({"id": ["1", "2"], "text": ["one", "two"]}), folder / "a.parquet")
    ((ref,), _) = resolve(tmp_path, f"{address}/a.parquet")
    assert read(check_source(tmp_path, ref)) == [Raw(1, "one", "1"), Raw(2, "two", "2")]


def test_a_file_that_changed_or_ended_early_stops_the_reading(server: Any, allowed: None, tmp_path: Path) -> None:
    address, folder, _ = server
    (folder / "a.jsonl").write_bytes(LINES)
    ((ref,), _) = resolve(tmp_path, f"{address}/a.jsonl")
    for content in (LINES[:-400], LINES.replace(b"Line 7 ", b"Lime 7 ")):
        (folder / "a.jsonl").write_bytes(content)
        with pytest.raises(UserError, match="has changed since the plan"):
            read(check_source(tmp_path, ref))
    (folder / "a.jsonl").unlink()
    with pytest.raises(StageFailed, match=r"a\.jsonl could not be read"):
        read(check_source(tmp_path, ref))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "192.168.1.1", "169.254.169.254", "[::ffff:127.0.0.1]"])
def test_addresses_of_this_machine_and_its_network_are_refused(host: str, tmp_path: Path) -> None:
    _, ((field, problem),) = resolve(tmp_path, f"http://{host}:9/a.jsonl")
    assert field == "data.sources.s.path"
    assert "address of this machine or its network" in problem
    assert remote.ALLOW_PRIVATE in problem


def test_a_redirect_into_the_network_is_refused_too(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address, _, requests = server
    only_elsewhere = remote._is_public
    monkeypatch.setattr(remote, "_is_public", lambda ip: str(ip) == "127.0.0.1" or only_elsewhere(ip))  # the server stands for a public one
    _, ((_, problem),) = resolve(tmp_path, f"{address}/moved")
    assert "GET /moved" in requests
    assert "169.254.169.254 is an address of this machine or its network" in problem


@pytest.mark.parametrize(("address", "public"), [
    ("8.8.8.8", True), ("2606:4700::1111", True), ("100.64.0.1", False), ("fe80::1", False), ("fd00::1", False), ("::ffff:10.0.0.1", False),
    ("64:ff9b::a00:1", False), ("64:ff9b::808:808", True), ("2002:a00:1::", False), ("224.0.0.1", False), ("::", False)])
def test_public_addresses_are_told_from_others(address: str, public: bool) -> None:
    import ipaddress

    assert remote._is_public(ipaddress.ip_address(address)) is public


def test_folders_and_patterns_of_an_object_store_are_listed_in_order(memory: Any, tmp_path: Path) -> None:
    for name in ("b/2.jsonl", "b/1.jsonl", "b/c/3.jsonl", "b/other.txt"):
        memory.pipe(f"/bucket/{name}", LINES)
    found, _ = resolve(tmp_path, "memory://bucket/b/*.jsonl")
    assert [ref.path.rpartition("/")[2] for ref in found] == ["1.jsonl", "2.jsonl"]
    assert len(resolve(tmp_path, "memory://bucket/b")[0]) == 4
    for name in ("b/_SUCCESS", "b/.1.jsonl.crc", "b/_temporary/0/1.jsonl"):
        memory.pipe(f"/bucket/{name}", LINES)
    assert len(resolve(tmp_path, "memory://bucket/b")[0]) == 4
    assert len(resolve(tmp_path, "memory://bucket/b/_*")[0]) == 1
    assert [record.id for record in read(check_source(tmp_path, found[0]))][:2] == ["d0", "d1"]


def test_what_is_not_there_is_a_problem_of_the_plan(memory: Any, tmp_path: Path) -> None:
    for url in ("memory://bucket/none.jsonl", "memory://bucket/*.jsonl"):
        (ref,), ((field, problem),) = resolve(tmp_path, url)
        assert (ref.sha256, field) == (MISSING, "data.sources.s.path")
        assert url in problem


def test_a_file_url_is_a_path_below_the_data_root_or_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub/a.jsonl").write_bytes(LINES)
    (tmp_path / "outside.jsonl").write_bytes(LINES)
    (ref,), _ = resolve(root, f"file://{root}/sub/a.jsonl")
    assert ref.path == "sub/a.jsonl"
    for url in (f"file://{tmp_path}/outside.jsonl", f"file://{root}/../outside.jsonl", "file:///etc/passwd", f"file://{root}-2/x"):
        with pytest.raises(UserError, match="leaves the data root"):
            resolve(root, url)


@pytest.mark.parametrize(("url", "told"), [
    ("ftp://a.b/c.jsonl", "unknown protocol 'ftp'"), ("simplecache::http://a.b/c.jsonl", "chains protocols"), ("zip://a::memory://b.zip", "chains protocols"),
    ("https://user:hunter2@a.b/c.jsonl", "a user's name or password"), ("hf://datasets/owner/name/a.parquet", "no fixed version"),
    ("hf://datasets/owner/name@main/a.parquet", "no fixed version"), ("hf://owner/name@" + COMMIT + "/a.parquet", "no fixed version"),
    ("local:///etc/passwd", "unknown protocol")])
def test_urls_that_can_not_be_trusted_to_stay_the_same_or_apart_are_refused(url: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told) as error:
        resolve(tmp_path, url)
    assert "hunter2" not in str(error.value)


def test_only_sources_of_text_may_be_urls(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"eval\.x\.path: .* is a URL"):
        FileTable(tmp_path).resolve("eval.x.path", "https://a.b/c.jsonl")


def test_a_checksum_of_ones_own_is_verified(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    refs = FileTable(tmp_path).resolve("f", "a.jsonl")
    check_checksum("data.sources.s.sha256", refs, hashlib.sha256(LINES).hexdigest())
    with pytest.raises(UserError, match=r"data\.sources\.s\.sha256: a\.jsonl has the checksum"):
        check_checksum("data.sources.s.sha256", refs, "0" * 64)
    with pytest.raises(UserError, match="a checksum belongs to one file"):
        check_checksum("data.sources.s.sha256", refs * 2, "0" * 64)
