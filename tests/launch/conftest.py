"""Plans of toy stages, made by the real launcher and the real worker."""

import sys
from pathlib import Path

import pytest

from allam.artifacts import Store
from allam.cluster import ClusterProfile
from allam.files import FileTable
from allam.launch import make
from allam.launch.folder import Made
from allam.pipeline import STAGES, Plan
from allam.recipe import load

TOY = Path(__file__).parent / "toy"


class Bench:
    """A store, a profile, and a plan to add toys to."""

    def __init__(self, root: Path) -> None:
        import toy_stages

        self.config = toy_stages.ToyConfig
        self.store = Store(root / "store")
        self.plan = Plan(load("demo"), root, FileTable(root))
        self.profile = ClusterProfile(environment={"PYTHONPATH": f"{TOY}:{Path(__file__).parents[2]}", "TOY": "yes"})

    def toy(self, name: str = "toy", kind: str = "toy", inputs: dict[str, str] | None = None, **config: object) -> str:
        """Adds a toy to the plan."""
        return self.plan.add(name, self.config(**config), inputs or {}, kind=kind)

    def make(self, name: str, profile: ClusterProfile | None = None, on_progress=None) -> Made:
        """Makes a stage of the plan."""
        spec = self.plan.specs[name]
        inputs = {n: self.store.ref(self.plan.specs[s].kind, self.plan.specs[s].key) for n, s in spec.inputs.items()}
        return make(spec, inputs, self.store, profile or self.profile, on_progress)

    def folder(self, name: str) -> Path:
        """A stage's folder."""
        return self.store.folder(self.plan.specs[name].kind, self.plan.specs[name].key)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.syspath_prepend(str(TOY))
    kinds = dict(STAGES)
    import toy_stages

    toy_stages.install()
    yield Bench(tmp_path)
    for kind in set(STAGES) - set(kinds):
        del STAGES[kind]
    sys.modules.pop("toy_stages", None)
