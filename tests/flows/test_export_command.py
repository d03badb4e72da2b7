"""`allam export` refuses what can't be before it loads a model. What it writes is tested in tests/train/test_export.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def test_a_stage_that_is_not_made_or_makes_no_model_is_refused(allam: Any, tmp_path: Path) -> None:
    assert "continue isn't made yet" in allam("export", allam.recipe, "--stage", "continue", "--to", tmp_path / "x", status=2)
    assert "filter makes no model" in allam("export", allam.recipe, "--stage", "filter", "--to", tmp_path / "x", status=2)
    assert "did you mean 'continue'?" in allam("export", allam.recipe, "--stage", "contine", "--to", tmp_path / "x", status=2)


def test_a_folder_that_holds_something_is_not_written_over(allam: Any, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine.txt").write_text("mine")
    assert "is there already, and not empty" in allam("export", allam.recipe, "--to", tmp_path / "x", status=2)
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["mine.txt"]


def test_gguf_without_its_converter_is_refused_with_the_remedy(allam: Any, tmp_path: Path) -> None:
    allam.monkeypatch.setenv("LLAMA_CPP", str(tmp_path / "nowhere"))
    told = allam("export", allam.recipe, "--gguf", "--to", tmp_path / "x", status=2)
    assert "needs llama.cpp's convert_hf_to_gguf.py" in told
    assert "set LLAMA_CPP to its folder" in told
