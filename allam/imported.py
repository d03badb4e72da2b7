"""What the folder of an imported base says before anything runs: its shape, and why its vocabulary, positions or tensors can't be trained (paper §2.2).

Only config.json and the headers of the safetensors are read, so a plan needs no torch. A model that only the hub knows is looked at in its own stage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from allam import architectures
from allam.errors import UserError
from allam.pipeline import Plan, StageSpec
from allam.tensor_files import read_header
from allam.train.config import PretrainStageConfig
from allam.train.estimate import Dimensions

NUMBERS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


def config_of_import(plan: Plan) -> dict[str, Any] | None:
    """The content of the imported base's config.json; None where there is no import, or its folder isn't here."""
    imported = plan.recipe.train.import_model
    if imported is None or imported.revision is not None:
        return None
    try:
        found = json.loads((plan.root / imported.model / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def trained_shape(plan: Plan) -> Dimensions:
    """The shape of the model that the plan trains: the imported one's where it is here (by Llama's names of the fields), else the recipe's."""
    model, config = plan.recipe.train.model, config_of_import(plan)
    if config is None or not all(isinstance(config.get(name), int) for name in NUMBERS):
        return Dimensions.of(model)
    hidden_size, layers, heads, intermediate_size = (config[name] for name in NUMBERS)
    return Dimensions(hidden_size, layers, heads, config.get("num_key_value_heads") or heads, config.get("head_dim") or hidden_size // heads,
                      intermediate_size, bool(config.get("tie_word_embeddings", False)))


def import_misfits(plan: Plan, pieces: int | None, specs: Iterable[StageSpec]) -> list[str]:
    """Why the imported base can't be extended or trained, a sentence each with its remedy. `pieces` is the size of its tokenizer, where that is known."""
    imported, config = plan.recipe.train.import_model, config_of_import(plan)
    if imported is None or config is None:
        return []
    names, folder = {spec.name: spec for spec in specs}, plan.root / imported.model
    if unknown := architectures.refusal(config):
        return [f"import_model: {imported.model}: {': '.join(unknown)}"]
    found = [f"extend: {problem}" for problem in (_tensors(folder, config), _rows(plan, config, pieces)) if problem and "extend" in names]
    positions, kind = config.get("max_position_embeddings"), config.get("model_type")
    for name, spec in names.items():
        if not isinstance(spec.config, PretrainStageConfig):
            continue
        refused = (spec.config.phase.dropout and architectures.dropout_refusal(kind),
                   not spec.config.phase.attend_across_documents and architectures.packing_refusal(kind))
        found += [f"{name}: {': '.join(problem)}" for problem in refused if problem]
        if isinstance(positions, int) and spec.config.phase.sequence_length > positions:
            found.append(f"{name}: sequence_length {spec.config.phase.sequence_length} is longer than the {positions} positions of {imported.model}: "
                         f"set train.{name}.sequence_length to {positions} at most")
    return found


def _tensors(folder: Path, config: dict[str, Any]) -> str | None:
    names = _tensor_names(folder)
    if names is None:
        return None
    known = architectures.architecture_of(config.get("model_type"))
    for wanted in (known.inputs,) if config.get("tie_word_embeddings", True) else (known.inputs, known.outputs):
        if not names & set(wanted):
            return (f"{folder} ({config.get('model_type')}) has no tensor {wanted[0]}: give a whole, unquantised checkpoint as safetensors, with the names "
                    "that transformers gives its tensors")
    if biases := names & {name.replace("weight", "bias") for name in known.outputs}:
        return f"{folder} has {biases.pop()}, with a value for each id that would have to grow too: give a model whose output layer has no bias"
    return None


def _tensor_names(folder: Path) -> set[str] | None:
    """The tensors' names from the headers of the safetensors; None where one can't be read."""
    try:
        return {name for path in sorted(folder.glob("*.safetensors")) for name in read_header(path)[0]}
    except (OSError, UserError):
        return None


def _rows(plan: Plan, config: dict[str, Any], pieces: int | None) -> str | None:
    rows, padding = config.get("vocab_size"), plan.recipe.train.extend.base_padding_rows
    if pieces is None or not isinstance(rows, int) or rows == pieces + padding:
        return None
    told = f"the imported model has {rows} rows for its tokenizer's {pieces} pieces"
    if rows < pieces:
        return f"{told}: give tokenizer.base.model the tokenizer that the model was trained with"
    return (f"{told} and {padding} padding rows: if its last {rows - pieces} rows only pad it, set train.extend.base_padding_rows={rows - pieces}; if they are "
            "tokens of another extension, give the model as it was before that")
