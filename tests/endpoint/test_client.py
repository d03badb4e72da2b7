"""The client of OpenAI-compatible servers against a real server on this machine that misbehaves on demand."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from allam.endpoint.client import ChatClient
from allam.errors import StageFailed, UserError

KEY = "sk-canary-0123456789abcdef"
MESSAGES = [{"role": "user", "content": "مرحبا"}]


class Server:
    """Answers each request with the next of `script` (a status, a body and headers), then with a good completion; keeps what it was sent."""

    def __init__(self) -> None:
        self.script: list[tuple[int, Any, dict[str, str]]] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.delay = 0.0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append(body | {"path": self.path})
                server.headers.append(dict(self.headers))
                status, answer, headers = server.script.pop(0) if server.script else (200, completion("ok"), {})
                if answer == "hang up":
                    return
                if answer == "hang":
                    time.sleep(server.delay)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def completion(text: Any) -> dict[str, Any]:
    return {"id": "x", "model": "judge-1", "choices": [{"message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2}}


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()


@pytest.fixture
def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatClient]:
    monkeypatch.setenv("ALLAM_JUDGE_KEY", KEY)
    with ChatClient(server.url, timeout=0.5, attempts=4, pause=0.01, longest_pause=0.05) as client:
        yield client


def test_a_completion_is_asked_for_and_read(server: Server, client: ChatClient) -> None:
    found = client.complete("judge", MESSAGES, 32, temperature=0.0, seed=3)
    assert (found.text, found.model, found.usage["prompt_tokens"]) == ("ok", "judge-1", 5)
    assert server.requests == [{"model": "judge", "messages": MESSAGES, "max_tokens": 32, "temperature": 0.0, "seed": 3, "path": "/v1/chat/completions"}]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("trouble", [
    (429, {"error": "slow down"}, {"Retry-After": "0.03"}), (500, b"oops", {}), (503, b"", {}), (200, b"<html>not json</html>", {}), (200, {"choices": []}, {}),
    (200, completion(None), {}), (200, b"\xff\xfe", {}), (200, "hang up", {}), (429, {}, {"Retry-After": "soon"})], ids=lambda t: f"{t[0]}-{str(t[1])[:12]}")
def test_what_may_pass_is_tried_again(server: Server, client: ChatClient, trouble: tuple[int, Any, dict[str, str]]) -> None:
    server.script = [trouble, trouble]
    assert client.complete("judge", MESSAGES, 8).text == "ok"
    assert client.retries == 2


def test_a_server_that_hangs_is_given_up_and_asked_again(server: Server, client: ChatClient) -> None:
    server.delay, server.script = 1.5, [(200, "hang", {})]
    start = time.monotonic()
    assert client.complete("judge", MESSAGES, 8).text == "ok"
    assert time.monotonic() - start < 1.4


def test_after_all_attempts_it_fails_with_the_last_trouble_and_a_remedy(server: Server, client: ChatClient) -> None:
    server.script = [(500, b"overloaded", {})] * 4
    with pytest.raises(StageFailed, match=r"4 attempts.*overloaded") as error:
        client.complete("judge", MESSAGES, 8)
    assert "run the same command again" in error.value.remedy
    assert len(server.requests) == 4


@pytest.mark.parametrize(("status", "word"), [(400, "model"), (401, "ALLAM_JUDGE_KEY"), (403, "OPENAI_API_KEY"), (404, "/v1")])
def test_what_is_refused_for_good_is_not_tried_again(server: Server, client: ChatClient, status: int, word: str) -> None:
    server.script = [(status, {"error": "no"}, {})]
    with pytest.raises(UserError) as error:
        client.complete("judge", MESSAGES, 8)
    assert word in error.value.remedy
    assert len(server.requests) == 1


def test_the_key_shows_nowhere_even_if_the_server_echoes_it(server: Server, client: ChatClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    server.script = [(401, {"error": "x" * 170 + f"bad key {KEY}"}, {})]
    with pytest.raises(UserError) as error:
        client.complete("judge", MESSAGES, 8)
    client.complete("judge", MESSAGES, 8)
    assert "sk-canary" not in str(error.value) + caplog.text
    assert "sk-canary" not in repr(vars(client))


def test_a_redirect_is_not_followed_with_the_key(server: Server, client: ChatClient) -> None:
    elsewhere = Server()
    server.script = [(307, b"", {"Location": elsewhere.url})]
    with pytest.raises(UserError, match="307"):
        client.complete("judge", MESSAGES, 8)
    assert elsewhere.requests == []
    elsewhere.http.shutdown()


def test_without_a_key_none_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALLAM_JUDGE_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with ChatClient(server.url) as client:
        client.complete("judge", MESSAGES, 8)
    assert "Authorization" not in server.headers[0]


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="no HTTP address"):
        ChatClient("localhost:8000")
