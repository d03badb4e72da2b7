"""External files: found below the data root, named by relative path and content, so that new files are an explicit change.

`<recipe>.lock.json` beside a recipe (written by `allam lock`) fixes the list with its checksums; without it the files are found and hashed when
planning, with a cache by size and modification time in the store. Sources of text may lie elsewhere, by URL: there the cache goes by what the
server says of the version (an ETag, a date), and a server that says nothing is read at each plan.
"""

from __future__ import annotations

import json
from pathlib import Path

from allam.artifacts import file_sha256, write_json
from allam.errors import UserError
from allam.remote import CHANGED, Found, Place, RemoteFile, check_url, find, is_hidden, is_url, measure, told
from allam.section import FileRef

MISSING = "missing"


class FileTable:
    """Finds the files behind a recipe's paths. `problems` collects what is missing, as (recipe field, message)."""

    def __init__(self, root: Path, cache_file: Path | None = None, lock_file: Path | None = None) -> None:
        self.root = root
        self.problems: list[tuple[str, str]] = []
        self.found: dict[str, FileRef] = {}
        self._cache_file = cache_file
        self._cache: dict[str, list[object]] = _read(cache_file)
        self._locked = _locked(lock_file)
        self.patterns: dict[str, tuple[FileRef, ...]] = {}
        self.unlocked: dict[str, None] = {}  # files that a locked pattern names by now, beyond those of the lock
        self.resized: dict[str, None] = {}  # locked files that have another size by now
        self._changed = False

    def resolve(self, field: str, pattern: str, *, urls: bool = False) -> tuple[FileRef, ...]:
        """The files that `pattern` (a path or a glob below the root; a folder means all files in it) names, sorted by path, but for
        those that `is_hidden` leaves out.

        With `urls` a pattern may be a URL too (see `allam.remote`).
        """
        if is_url(pattern):
            if not urls:
                raise UserError(f"{field}: {pattern} is a URL, and only sources of text can be", "bring the file below data.root and give its path there")
            if not pattern.startswith("file://"):
                return self._resolve_url(field, pattern)
            pattern = self._below_root(field, pattern)
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise UserError(f"{field}: the path {pattern!r} leaves the data root", "give a path below data.root")
        target = self.root / pattern
        if target == self.root:
            raise UserError(f"{field}: the path {pattern!r} is the data root itself", "name a file, a folder or a glob below data.root")
        files = sorted(p for p in (target.rglob("*") if target.is_dir() else self.root.glob(pattern)) if p.is_file())
        paths = {name: path for path in files if not is_hidden(name := path.relative_to(self.root).as_posix(), pattern)}
        if pattern in self._locked:
            known = {ref.path for ref in self._locked[pattern]}
            self.unlocked |= dict.fromkeys(name for name in paths if name not in known)
            self.resized |= dict.fromkeys(ref.path for ref in self._locked[pattern] if ref.path in paths and paths[ref.path].stat().st_size != ref.size)
            return self._note(pattern, self._locked[pattern])
        if not paths:
            self.problems.append((field, f"no file at {target}"))
            return (FileRef(path=pattern, sha256=MISSING, size=0),)
        return self._note(pattern, tuple(self._reference(path) for path in paths.values()))

    def _below_root(self, field: str, url: str) -> str:
        """The path of a `file://` URL below the root: such a URL is another spelling of that path and opens no other folder."""
        path = url.removeprefix("file://")
        for root in (self.root, self.root.resolve()):
            if path.startswith(f"{root.as_posix()}/"):
                return path.removeprefix(f"{root.as_posix()}/")
        raise UserError(f"{field}: {url} leaves the data root {self.root}", "file:// URLs name files below data.root: move the file there, or set data.root")

    def _resolve_url(self, field: str, url: str) -> tuple[FileRef, ...]:
        check_url(field, url)
        if url in self._locked:
            return self._note(url, self._locked[url])
        try:
            refs = tuple(self._remote_reference(found) for found in find(url))
        except UserError:
            raise
        except Exception as error:  # each protocol's library has errors of its own
            self.problems.append((field, f"{url} can't be reached: {told(error)}"))
            return (FileRef(path=url, sha256=MISSING, size=0),)
        if not refs:
            self.problems.append((field, f"no file at {url}"))
            return (FileRef(path=url, sha256=MISSING, size=0),)
        return self._note(url, refs)

    def _remote_reference(self, found: Found) -> FileRef:
        cached = self._cache.get(found.url)
        if not isinstance(cached, list) or len(cached) != 3 or not found.stamp or cached[0] != found.stamp:
            cached = [found.stamp, *((found.sha256, found.size) if found.sha256 else measure(found.url))]
            self._cache[found.url] = cached
            self._changed = True
        return FileRef(path=found.url, sha256=str(cached[1]), size=int(str(cached[2])))

    def _note(self, pattern: str, refs: tuple[FileRef, ...]) -> tuple[FileRef, ...]:
        self.patterns[pattern] = refs
        self.found.update({ref.path: ref for ref in refs})
        return refs

    def _reference(self, path: Path) -> FileRef:
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        cached = self._cache.get(str(path))
        if not isinstance(cached, list) or cached[:2] != stamp or len(cached) != 3:
            cached = [*stamp, file_sha256(path)]
            self._cache[str(path)] = cached
            self._changed = True
        return FileRef(path=path.relative_to(self.root).as_posix(), sha256=str(cached[2]), size=status.st_size)

    def save(self) -> None:
        """Keeps the checksums for the next plan."""
        if self._cache_file is not None and self._changed:
            write_json(self._cache_file, self._cache)


def write_lock(path: Path, table: FileTable) -> dict[str, int]:
    """Writes the lock file: the files behind each of the recipe's paths, and the size and checksum of each. Returns how it differs from the one that stood
    there: files `added`, `changed` and `removed`; nothing where there was none."""
    try:
        before = {ref.path: ref.sha256 for refs in _locked(path).values() for ref in refs}
    except UserError:  # a damaged one is what this replaces
        before = {}
    write_json(path, {"patterns": {pattern: [ref.path for ref in refs] for pattern, refs in sorted(table.patterns.items())},
                      "files": {ref.path: {"sha256": ref.sha256, "size": ref.size} for ref in sorted(table.found.values(), key=lambda r: r.path)}})
    now = {ref.path: ref.sha256 for ref in table.found.values()}
    return {"added": len(now.keys() - before.keys()), "changed": sum(now[name] != before[name] for name in now.keys() & before.keys()),
            "removed": len(before.keys() - now.keys())} if before else {}


def lock_path(recipe_file: Path) -> Path:
    """Where the lock file of a recipe lies."""
    return recipe_file.with_suffix(".lock.json")


def check_file(root: Path, ref: FileRef) -> Path:
    """The path of an external file, once its size and checksum are found to be those of the plan; raises `UserError` otherwise."""
    path = root / ref.path
    if not path.is_file():
        raise UserError(f"the file {path} is missing", "put it there, or change the path in the recipe")
    if path.stat().st_size != ref.size or file_sha256(path) != ref.sha256:
        raise UserError(f"the file {path} has changed since the plan was made",
                        CHANGED)
    return path


def check_source(root: Path, ref: FileRef) -> Place:
    """As `check_file`, for files that may lie elsewhere: those are checked while they are read."""
    return RemoteFile(ref.path, ref.sha256, ref.size) if is_url(ref.path) else check_file(root, ref)


def check_checksum(field: str, refs: tuple[FileRef, ...], sha256: str | None) -> None:
    """Compares what a path names with the checksum that the recipe gives for it, if any; raises `UserError`."""
    if sha256 is None or any(ref.sha256 == MISSING for ref in refs):
        return
    if len(refs) != 1:
        raise UserError(f"{field}: a checksum belongs to one file, and the path names {len(refs)}", "name one file, or use `allam lock RECIPE` for many")
    if refs[0].sha256 != sha256:
        raise UserError(f"{field}: {refs[0].path} has the checksum {refs[0].sha256}, not {sha256}",
                        "it is another file than the recipe means: fetch the right one, or write down the new checksum")


def _locked(lock_file: Path | None) -> dict[str, tuple[FileRef, ...]]:
    """The files behind each path of the recipe, as its lock file says."""
    try:
        lock = _read(lock_file)
        return {pattern: tuple(FileRef(path=path, **lock["files"][path]) for path in paths) for pattern, paths in lock.get("patterns", {}).items()}
    except (KeyError, AttributeError, TypeError, ValueError):
        remedy = "write it anew with `allam lock RECIPE`, or remove it to plan from the files as they are"
        raise UserError(f"the lock file {lock_file} is damaged", remedy) from None


def _read(path: Path | None) -> dict:  # type: ignore[type-arg]
    if path is None or not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}", "remove it; `allam plan` or, for a lock file, `allam lock RECIPE` makes it anew") from None
    return content if isinstance(content, dict) else {}
