"""Data sets of the Hugging Face hub, against a small server that answers the hub's routes, and from the cache without any network."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

COMMIT = "0123456789abcdef" * 2 + "01234567"
DATASET = f"hf://datasets/owner/name@{COMMIT}"
FILES = {"data/a.jsonl": b'{"id": "1", "text": "one"}\n{"id": "2", "text": "two"}\n',
         "data/large.jsonl": b'{"id": "3", "text": "three"}\n', "README.md": b"# x"}
READS = f"""
import json
from pathlib import Path
from allam.data.config import SourceConfig
from allam.data.readers import read_records
from allam.files import FileTable, check_source

table = FileTable(Path("."))
refs = table.resolve("data.sources.s.path", "{DATASET}/data/*.jsonl", urls=True)
config = SourceConfig(path="x", language="en", domain="web")
found = [] if table.problems else [r.text for ref in refs for r in read_records("s", config, check_source(Path("."), ref), 1000, lambda n: None)]
print(json.dumps({{"sha256": [ref.sha256 for ref in refs], "texts": found, "problems": table.problems}}))
"""


class Hub(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append((path, self.headers.get("Authorization")))  # type: ignore[attr-defined]
        api, files = "/api/datasets/owner/name", f"/datasets/owner/name/resolve/{COMMIT}/"
        if path == f"{api}/revision/{COMMIT}":
            self.answer(json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": [], "private": False, "downloads": 0, "likes": 0, "tags": []}).encode())
        elif path.startswith(f"{api}/tree/{COMMIT}"):
            under = path.removeprefix(f"{api}/tree/{COMMIT}").strip("/")
            inside = [self.entry(name) for name in FILES if name.rpartition("/")[0] == under]
            folders = [] if under else [{"type": "directory", "path": "data", "oid": "0", "size": 0}]
            self.answer(json.dumps(inside + folders).encode())
        elif path.startswith(files):
            self.answer(FILES[path.removeprefix(files)], "bytes" if "Range" in self.headers else None)
        else:
            self.send_error(404)

    do_HEAD = do_GET

    @staticmethod
    def entry(name: str) -> dict[str, Any]:
        data = FILES[name]
        large = {"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 120}} if "large" in name else {}
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data, usedforsecurity=False).hexdigest()} | large

    def answer(self, data: bytes, ranges: str | None = None) -> None:
        self.send_response(206 if ranges else 200)
        self.send_header("ETag", f'"{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data)))
        if ranges:
            self.send_header("Content-Range", f"bytes 0-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", server.asked  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def run(home: Path, **environment: str) -> dict[str, Any]:
    """What a process of its own finds: the hub's library reads its environment when it is imported."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    (home / "token").parent.mkdir(exist_ok=True)
    (home / "token").write_text("hf_stored")
    done = subprocess.run([sys.executable, "-c", READS], env=clean | {"HF_HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2])} | environment,
                          capture_output=True, text=True, timeout=60, check=True)
    assert "hf_canary" not in done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_files_of_a_commit_are_found_hashed_and_read_with_the_environments_token_alone(hub: Any, tmp_path: Path) -> None:
    endpoint, asked = hub
    found = run(tmp_path, **{"HF_ENDPOINT": endpoint, "HF_TOKEN": "hf_canary"})
    assert found == {"sha256": [hashlib.sha256(FILES[f"data/{name}.jsonl"]).hexdigest() for name in ("a", "large")], "texts": ["one", "two", "three"],
                     "problems": []}
    files = [path.rpartition("/")[2] for path, _ in asked if "/resolve/" in path]
    assert files == ["a.jsonl", "a.jsonl", "large.jsonl"]  # the hub tells the checksum of large files
    assert {token for path, token in asked if "owner/name" in path} == {"Bearer hf_canary"}
    asked.clear()
    run(tmp_path, HF_ENDPOINT=endpoint)
    assert {token for path, token in asked if "owner/name" in path} == {None}  # a token that was stored by a login isn't used


def test_what_was_downloaded_is_read_without_a_network_and_what_was_not_is_a_clear_problem(tmp_path: Path) -> None:
    (missing,) = run(tmp_path, HF_HUB_OFFLINE="1")["problems"]
    assert missing[0] == "data.sources.s.path"
    assert "hf download" in missing[1]
    snapshot = tmp_path / f"hub/datasets--owner--name/snapshots/{COMMIT}"
    for name, data in FILES.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_bytes(data)
    assert run(tmp_path, HF_HUB_OFFLINE="1")["texts"] == ["one", "two", "three"]
