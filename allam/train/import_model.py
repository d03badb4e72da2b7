"""An existing base model, such as Llama 2, instead of one pretrained here (paper §2.2): from a folder or from the hub, safetensors only.

A folder lies below the data root and its files are checked against the plan's checksums. A hub's model needs a revision and is downloaded only
where the hub is allowed (HF_HUB_OFFLINE and HF_HOME are honoured). No code of the model's runs, no pickle is opened. What was written is compared
with what was read, byte by byte.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from allam import architectures
from allam.engine.model import load_config, save_model
from allam.errors import StageFailed, UserError
from allam.files import MISSING, check_file
from allam.text.tokenizer import Tokenizer
from allam.train.config import ImportConfig
from allam.train.shape import write_generation_config
from allam.train.shards import Shards, changed_tensors

WANTED = ("config.json", "*.safetensors", "*.safetensors.index.json")


def run(config: ImportConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Checks the model against the input `tokenizer` (the base's) and writes it as `model/`."""
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    files = [ref for ref in config.files if ref.sha256 != MISSING]
    source = _from_folder(config, inputs["root"]) if files else _from_hub(config)
    shards = Shards(source)
    model_config = load_config(source)
    if refused := architectures.refusal(model_config.to_dict()):
        raise UserError(*refused)
    if model_config.vocab_size < tokenizer.vocab_size:
        raise UserError(f"the model {config.model!r} has {model_config.vocab_size} rows, its tokenizer {tokenizer.vocab_size} pieces",
                        "give tokenizer.base.model the tokenizer that this model was trained with")
    save_model(out / "model", model_config, shards.tensors(), inputs["tokenizer"])
    write_generation_config(out / "model", tokenizer)
    changed = next(changed_tensors(shards, Shards(out / "model")), None)
    if changed is not None:
        raise StageFailed(f"{changed} differs from the model's own after the import", "report this as a bug")
    return {"model": config.model, "revision": config.revision, "parameters": shards.parameters, "vocab_size": model_config.vocab_size}


def _from_folder(config: ImportConfig, root: Path) -> Path:
    for ref in config.files:
        check_file(root, ref)
    return root / config.model


def _from_hub(config: ImportConfig) -> Path:
    from huggingface_hub import snapshot_download  # only where a recipe names a hub's model
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    if config.revision is None:
        raise UserError(f"train.import_model.model {config.model!r} is neither a folder below data.root nor a hub's model with a revision",
                        "put the model's folder below data.root, or set train.import_model.revision to a commit of the hub's repository")
    try:
        return Path(snapshot_download(config.model, revision=config.revision, allow_patterns=list(WANTED)))
    except (LocalEntryNotFoundError, RepositoryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise StageFailed(f"{config.model} at {config.revision} could not be had from the hub: {str(error).splitlines()[0]}",
                          "download it where there is internet (huggingface-cli download) and give its folder, or unset HF_HUB_OFFLINE") from None
