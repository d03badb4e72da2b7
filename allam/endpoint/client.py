"""A client of OpenAI-compatible servers: chat completions with retries, a time limit and an answer that is checked (paper §4.2).

The key comes from the environment alone (`ALLAM_JUDGE_KEY`, else `OPENAI_API_KEY`; `key_variables` may name others) and never reaches a log, an
error or a file. Whatever a server may pass (429, 5xx, a dropped connection, a time-out, a body that isn't what it should be) is tried again with
growing pauses; what it won't (401, 404, 400) fails at once with a remedy.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import httpx

from allam.errors import StageFailed, UserError

KEY_VARIABLES = ("ALLAM_JUDGE_KEY", "OPENAI_API_KEY")
TRIED_AGAIN = {408, 409, 425, 429}
LONGEST_EXCERPT = 200
LARGEST_BODY = 4_000_000


@dataclass(frozen=True)
class Completion:
    """One answer of a server."""

    text: str
    model: str
    usage: dict[str, int] = field(default_factory=dict)


class ChatClient:
    """Chat completions of one server. `attempts` bounds the tries of one request; pauses double from `pause` seconds to `longest_pause`."""

    def __init__(self, base_url: str, timeout: float = 60.0, attempts: int = 6, pause: float = 1.0, longest_pause: float = 30.0,
                 key_variables: Sequence[str] = KEY_VARIABLES) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise UserError(f"the endpoint {base_url!r} is no HTTP address", "give the server's base URL, such as http://localhost:8000/v1")
        self.url = base_url.rstrip("/") + "/chat/completions"
        self.attempts, self.pause, self.longest_pause = attempts, pause, longest_pause
        self.key_variables = key_variables
        key = next((os.environ[name] for name in key_variables if os.environ.get(name)), None)
        # httpx's own look-up of proxies and .netrc stays on (trust_env); redirects stay off, so that a key never follows one elsewhere
        self._http = httpx.Client(timeout=timeout, headers={"Authorization": f"Bearer {key}"} if key else {})
        self.retries = 0

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def complete(self, model: str, messages: Sequence[Mapping[str, str]], max_tokens: int, temperature: float = 0.0, seed: int | None = None) -> Completion:
        """The server's answer to a conversation. Raises `UserError` on what is refused for good, `StageFailed` when all attempts are used up."""
        body: dict[str, Any] = {"model": model, "messages": [dict(m) for m in messages], "max_tokens": max_tokens, "temperature": temperature}
        if seed is not None:
            body["seed"] = seed
        trouble, wait = "", 0.0
        for attempt in range(self.attempts):
            if attempt:
                self.retries += 1
                time.sleep(wait)
            wait = min(self.pause * 2**attempt, self.longest_pause) * random.uniform(0.5, 1.0)
            try:
                response = self._http.post(self.url, json=body)
            except httpx.HTTPError as error:
                trouble = f"{type(error).__name__}"
                continue
            if response.status_code == 200:
                completion = _read(response)
                if completion is not None:
                    return completion
                trouble = f"an answer that is no chat completion: {_excerpt(response, self.key_variables)}"
                continue
            trouble = f"status {response.status_code}: {_excerpt(response, self.key_variables)}"
            if response.status_code not in TRIED_AGAIN and response.status_code < 500:
                raise UserError(f"the server at {self.url} refused the request: {trouble}", _remedy(response.status_code, self.key_variables))
            wait = max(wait, min(_retry_after(response), self.longest_pause))
        raise StageFailed(f"the server at {self.url} gave no usable answer in {self.attempts} attempts; the last: {trouble}",
                          "check the server and run the same command again: answers that arrived are kept")


def _read(response: httpx.Response) -> Completion | None:
    """The completion in a response's body, or None where it isn't one."""
    if len(response.content) > LARGEST_BODY:
        return None
    try:
        body = json.loads(response.content)
        text = body["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    if not isinstance(text, str):
        return None
    usage = body.get("usage")
    counts = {k: v for k, v in usage.items() if isinstance(v, int)} if isinstance(usage, dict) else {}
    return Completion(text, str(body.get("model", "")), counts)


def _excerpt(response: httpx.Response, key_variables: Sequence[str]) -> str:
    """The head of a body, with whatever looks like our key struck out: some servers echo the header that they refuse."""
    text = response.content[:LARGEST_BODY].decode("utf-8", "replace")
    for name in key_variables:
        key = os.environ.get(name)
        text = text.replace(key, "[key]") if key else text
    return text[:LONGEST_EXCERPT].replace("\n", " ")


def _retry_after(response: httpx.Response) -> float:
    """Seconds that a server asks to wait, 0 where it doesn't say."""
    try:
        return max(float(response.headers.get("Retry-After", "0")), 0.0)
    except ValueError:
        return 0.0


def _remedy(status: int, key_variables: Sequence[str]) -> str:
    if status in (401, 403):
        return f"set the key in the environment variable {' or '.join(key_variables)}"
    if status == 404:
        return "check the base URL (most end in /v1) and the model's name"
    return "check the model's name and the length of the conversation"
