"""Data sets of the Hugging Face hub that `hf download` brought to this machine's cache (HF_HOME): read from there, so that nodes without a network can.

    hf download OWNER/NAME --repo-type dataset --revision COMMIT
"""

from __future__ import annotations

import os
import re
from pathlib import Path

URL = re.compile(r"hf://datasets/(?P<name>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})(?:/(?P<path>.*))?")


def _parts(url: str) -> tuple[str, str, str]:
    match = URL.fullmatch(url)
    assert match, url  # check_url came before
    return match["name"], match["commit"], match["path"] or ""


def cached_file(url: str) -> Path | None:
    """The file in the cache, if it is there."""
    from huggingface_hub import try_to_load_from_cache

    name, commit, path = _parts(url)
    found = try_to_load_from_cache(name, path, revision=commit, repo_type="dataset")
    return Path(found) if isinstance(found, str) else None


def is_offline() -> bool:
    """Whether the environment says that there is no network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def cached_files(url: str) -> list[str]:
    """The URLs of the cache's files that the URL (a file, a folder or a pattern) names; raises `OSError` where the data set isn't there."""
    from huggingface_hub import snapshot_download

    name, commit, path = _parts(url)
    try:
        folder = Path(snapshot_download(name, repo_type="dataset", revision=commit, local_files_only=True))
    except OSError:
        raise OSError(f"it isn't in the cache, and HF_HUB_OFFLINE is set: `hf download {name} --repo-type dataset --revision {commit}` on a machine "
                      "with a network brings it there") from None
    target = folder / path
    found = target.rglob("*") if target.is_dir() else folder.glob(path)
    return [f"hf://datasets/{name}@{commit}/{file.relative_to(folder).as_posix()}" for file in sorted(found) if file.is_file()]
