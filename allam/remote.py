"""Files that lie elsewhere, by fsspec: object stores, web servers, data sets of the Hugging Face hub. They are found, hashed and read as a stream.

A URL names one of the protocols of `PROTOCOLS`. What is read is checked against the size and checksum of the plan while it streams, so that a file
that changed, or a connection that broke, never passes for a shorter file. Secrets come from the environment alone: HF_TOKEN for the hub, AWS's and
Google's own variables for object stores; a URL with a password in it is refused.

Web servers on this machine or its network are out of bounds for a recipe, whatever name or redirect leads there: the address of each connection is
checked, unless ALLAM_ALLOW_PRIVATE_ADDRESSES=1 is set.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from allam import hub
from allam.errors import StageFailed, UserError

# protocol -> what has to be installed beside the package
PROTOCOLS = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "http": "aiohttp", "https": "aiohttp", "hf": "huggingface_hub", "memory": "fsspec"}
ALLOW_PRIVATE = "ALLAM_ALLOW_PRIVATE_ADDRESSES"
BLOCK = 1 << 20
MARKS = ("ETag", "etag", "blob_id", "Last-Modified", "LastModified", "md5Hash", "last_modified", "created")  # of a version, as the protocols name them
CHANGED = "run again to plan with the new content; where the recipe has a lock file, `allam lock RECIPE` must take that in first"
WILDCARDS = "*?["
PINNED = re.compile(r"hf://datasets/[\w.-]+/[\w.-]+@[0-9a-f]{40}(/|$)")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file elsewhere, with what the plan found there."""

    url: str
    sha256: str
    size: int  # bytes

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(urlsplit(self.url).path).name


Place = Path | RemoteFile


@dataclass(frozen=True, slots=True)
class Found:
    """A file elsewhere as a listing shows it. `stamp` changes with the content, or is empty where the server says nothing of the kind."""

    url: str
    stamp: str
    size: int = 0
    sha256: str | None = None  # where the server keeps one


def is_url(path: str) -> bool:
    """Whether a recipe's path names a protocol."""
    return "://" in path


def check_url(field: str, url: str) -> None:
    """Refuses what is no plain URL of a known protocol; raises `UserError`."""
    protocol, parts = url.split("://")[0], urlsplit(url)
    if "::" in url.replace(parts.netloc, "") or url.count("://") != 1:
        raise UserError(f"{field}: {url} chains protocols", "name one file, folder or pattern by one URL")
    if protocol not in PROTOCOLS:
        raise UserError(f"{field}: {url} has the unknown protocol {protocol!r}", f"use one of: {', '.join(PROTOCOLS)}, file; or a path below data.root")
    if parts.username or parts.password:
        raise UserError(f"{field}: the URL of {parts.hostname} holds a user's name or password", "secrets come from the environment alone: see docs/data.md")
    if protocol == "hf" and not PINNED.match(url):
        raise UserError(f"{field}: {url} names no fixed version of a data set of the hub",
                        "write hf://datasets/OWNER/NAME@COMMIT/PATH with all 40 digits of the commit; "
                        "`git ls-remote https://huggingface.co/datasets/OWNER/NAME` shows the newest")


def find(url: str) -> list[Found]:
    """The files behind a URL, a folder of an object store or a pattern, sorted, but for those that `is_hidden` leaves out; raises `OSError` or a library's
    error where it can't be reached."""
    return [found for found in _listed(url) if not is_hidden(found.url, url)]


def _listed(url: str) -> list[Found]:
    if url.startswith("hf://") and hub.is_offline():
        return [Found(name, name) for name in hub.cached_files(url)]  # a commit's files never change
    files, path = _filesystem(url)
    if url.startswith("http"):
        return [_found(url, files.info(path))]  # `?` and `*` are letters of a web address
    if any(sign in path for sign in WILDCARDS):
        listed = files.glob(path, detail=True)
    elif files.isdir(path):
        listed = files.find(path, detail=True)
    else:
        listed = {path: files.info(path)}
    return [_found(files.unstrip_protocol(name), info) for name, info in sorted(listed.items()) if info["type"] == "file"]


def is_hidden(path: str, pattern: str) -> bool:
    """Whether a file that a folder or pattern leads to is none of the data, as `_SUCCESS`, `.part-0.crc` and `_temporary/` of Spark and Hadoop and
    `.ipynb_checkpoints/` aren't: it or a folder begins with a sign that the pattern neither spells there nor begins a wildcard with."""
    spelled = pattern.split("/")
    shown = {part[0] for part in spelled if any(sign in part for sign in WILDCARDS)}
    return any(part[0] in "._" and part[0] not in shown for part in path.split("/") if part and part not in spelled)


def _found(url: str, info: dict[str, Any]) -> Found:
    marks = [str(info[name]) for name in MARKS if info.get(name)]
    large = info.get("lfs")
    return Found(url, "|".join([str(info.get("size")), *marks]) if marks else "", int(info.get("size") or 0), None if large is None else str(large.sha256))


def measure(url: str) -> tuple[str, int]:
    """SHA-256 and size of a file elsewhere, by reading it."""
    digest, size = hashlib.sha256(), 0
    with _open(url) as file:
        while data := file.read(BLOCK):
            digest.update(data)
            size += len(data)
    return digest.hexdigest(), size


def open_place(place: Place) -> Any:
    """A file for reading bytes from its beginning to its end, as a context manager."""
    return open(place, "rb") if isinstance(place, Path) else _Checked(place)


@contextmanager
def as_local(place: Place) -> Iterator[Path]:
    """The file on a local disk, for formats that are read from their end: one from elsewhere is brought to TMPDIR for as long as it is needed."""
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / place.name
        with _Checked(place) as source, open(path, "wb") as copy:
            shutil.copyfileobj(source, copy, BLOCK)
        yield path


class _Checked:
    """Reads a remote file once; at its end size and checksum must be those of the plan."""

    def __init__(self, remote: RemoteFile) -> None:
        self._remote, self._digest, self._size = remote, hashlib.sha256(), 0
        self._file: BinaryIO | None = None

    def read(self, size: int = BLOCK) -> bytes:
        """The next bytes; raises `StageFailed` where the connection breaks, `UserError` where the content is another."""
        try:
            if self._file is None:
                self._file = _open(self._remote.url)
            data = self._file.read(size)
        except Exception as error:  # each protocol's library has errors of its own
            raise StageFailed(f"{self._remote.url} could not be read: {told(error)}", "look at the network and the permissions, and run again") from error
        self._digest.update(data)
        self._size += len(data)
        if not data and (self._size != self._remote.size or self._digest.hexdigest() != self._remote.sha256):
            raise UserError(f"{self._remote.url} has changed since the plan was made, or ended early: {self._size} of {self._remote.size} bytes were read",
                            CHANGED)
        return data

    def __enter__(self) -> _Checked:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()


def told(error: BaseException) -> str:
    """Why a remote file can't be reached, for people."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, PrivateAddressError):
            return str(seen)
        seen = seen.__cause__ or seen.__context__
    return f"{type(error).__name__}: {error}".rstrip(": ")


# --- protocols ------------------------------------------------------------------------------------------------------------------

def _filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system for the URL, and the path in it."""
    import fsspec

    protocol = url.split("://")[0]
    options: dict[str, Any] = {}
    if protocol in ("http", "https") and os.environ.get(ALLOW_PRIVATE) != "1":
        options["get_client"] = _guarded_client
    if protocol == "hf":
        options["token"] = os.environ.get("HF_TOKEN") or False  # never a token that was stored on this machine
    try:
        files = fsspec.filesystem(protocol, **options)
    except ImportError as error:
        raise UserError(f"{url} needs a package that is not installed: {error}", f"pip install {PROTOCOLS[protocol]}") from None
    return files, files._strip_protocol(url)


def _open(url: str) -> Any:
    if url.startswith("hf://") and (cached := hub.cached_file(url)) is not None:
        return open(cached, "rb")
    files, path = _filesystem(url)
    return files.open(path, "rb", **({"block_size": 0} if url.startswith("http") else {}))  # 0: one request, read as a stream


class PrivateAddressError(OSError):
    """A web address that leads into this machine or its network."""


async def _guarded_client(**options: Any) -> Any:
    import aiohttp

    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=_public_socket), **options)


def _public_socket(address: Any) -> socket.socket:
    """A socket to a public address; called for each connection, after names were looked up and redirects followed."""
    family, kind, protocol, _, where = address
    if not _is_public(ipaddress.ip_address(where[0].split("%")[0])):
        raise PrivateAddressError(f"{where[0]} is an address of this machine or its network; set {ALLOW_PRIVATE}=1 to allow that")
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    return made


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None and not _is_public(inner):
            return False
    return address.is_global and not address.is_multicast
