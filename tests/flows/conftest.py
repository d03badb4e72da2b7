"""The `allam` command called in this process, on a small recipe."""

import sys
from pathlib import Path

import pytest
import yaml
from small import write_small_recipe

from flows import cli


class Command:
    """`allam` as a user calls it: arguments in, exit status and words out."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.capsys, self.monkeypatch = root, capsys, monkeypatch
        self.store, self.recipe = root / "store", root / "small.yaml"

    def __call__(self, *arguments: object, status: int = 0) -> str:
        """Calls the command; asserts the exit status; returns what it wrote to both streams."""
        self.monkeypatch.setattr(sys, "argv", ["allam", *(str(a) for a in arguments)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = self.capsys.readouterr()
        assert ended.value.code == status, captured.out + captured.err
        assert "Traceback" not in captured.out + captured.err
        return captured.out + captured.err

    def edit(self, change) -> None:
        """Changes the recipe's file."""
        tree = yaml.safe_load(self.recipe.read_text())
        change(tree)
        self.recipe.write_text(yaml.safe_dump(tree, allow_unicode=True, sort_keys=False))


@pytest.fixture
def allam(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    write_small_recipe(tmp_path)
    monkeypatch.setenv("ALLAM_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    return Command(tmp_path, capsys, monkeypatch)
