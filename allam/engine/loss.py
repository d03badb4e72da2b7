"""The negative log-likelihood of tokens, without ever holding the full logits of a large vocabulary (twice the base's after expansion).

Below `WHOLE_LOGITS` elements the logits are made at once, which is faster for small models; above, in chunks of tokens that are computed
again in the backward pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from allam.engine.pipeline import Elsewhere

WHOLE_LOGITS = 2**25  # elements: 128 MiB in fp32, three times that with its gradient
IGNORED = -100


def token_losses(model: PreTrainedModel, ids_BT: Tensor, targets_BT: Tensor, attention_mask_BT: Tensor | None = None,
                 whole_logits: int = WHOLE_LOGITS, positions_BT: Tensor | None = None) -> Tensor:
    """The loss of each target in nats, fp32, of shape [B, T]; zero where the target is `IGNORED` (-100).

    `targets_BT` are already shifted: targets[b, t] is what should follow ids[b, :t+1]. Only positions with a target meet the output matrix.
    With `positions_BT` (and no mask) attention ends where positions begin again: see `document_positions`.
    On all stages of a pipeline but the last, the losses are zero.
    """
    states_BTD = model.base_model(input_ids=ids_BT, attention_mask=attention_mask_BT, position_ids=positions_BT, use_cache=False).last_hidden_state
    if isinstance(model.get_output_embeddings(), Elsewhere):
        return states_BTD.squeeze(-1).float()  # zeros that carry the gradient of the stages after this one
    wanted_BT = targets_BT != IGNORED
    if bool(wanted_BT.all()):
        return _chunked(model, states_BTD.flatten(0, 1), targets_BT.flatten(), whole_logits).view_as(targets_BT)
    losses_N = _chunked(model, states_BTD[wanted_BT], targets_BT[wanted_BT], whole_logits)
    return torch.zeros(targets_BT.shape, dtype=torch.float32, device=targets_BT.device).masked_scatter(wanted_BT, losses_N)


def document_positions(ids_BT: Tensor, bos_id: int) -> Tensor:
    """Positions that begin again at each BOS, [B, T]; from them transformers makes a mask that keeps attention within a document."""
    index_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
    starts_BT = torch.where(ids_BT == bos_id, index_T, 0).cummax(dim=1).values
    return index_T - starts_BT


def _chunked(model: PreTrainedModel, states_ND: Tensor, targets_N: Tensor, whole_logits: int) -> Tensor:
    head = model.get_output_embeddings()

    def losses(states: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(head(states).float(), targets, reduction="none")

    rows = max(1, whole_logits // model.config.vocab_size)
    if len(targets_N) <= rows:
        return losses(states_ND, targets_N)
    parts = [checkpoint(losses, s, t, use_reentrant=False, preserve_rng_state=False)
             for s, t in zip(states_ND.split(rows), targets_N.split(rows), strict=True)]
    return torch.cat(parts)  # type: ignore[arg-type]
