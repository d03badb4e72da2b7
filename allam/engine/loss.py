"""The negative log-likelihood of tokens, without ever holding the full logits of a large vocabulary (twice the base's after expansion).

`summed_loss` is for training on a plain sum, as pretraining and SFT do: the gradient is made in the forward pass from each block of logits while it is at
hand (as Liger's fused linear cross-entropy does, Hsu et al. 2024), so that nothing is computed twice and the blocks stay small.
`token_losses` gives each token's loss with a gradient of its own, as DPO needs: below `WHOLE_LOGITS` elements the logits are made at once, above in
blocks that are computed again in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from allam.engine.logits import logits_of, rule_of
from allam.engine.pipeline import Elsewhere

WHOLE_LOGITS = 2**25  # elements: 128 MiB in fp32, three times that with its gradient
FUSED_LOGITS = {"cpu": 2**25, "cuda": 2**27}  # 2**21 to 2**26 were measured on a CPU; a GPU wants matrices of thousands of rows
IGNORED = -100


class LossHead(nn.Linear):
    """An output matrix that can also give losses; within its forward pass, since that is where ZeRO-3 has the whole matrix."""

    def forward(self, states: Tensor, targets: Tensor | None = None) -> Any:
        """Logits; with `targets` [N] the sum of the losses and, without a gradient, the loss of each."""
        return super().forward(states) if targets is None else _SummedLoss.apply(states, self.weight, targets, torch.is_grad_enabled())


def make_loss_head(model: PreTrainedModel) -> None:
    """Gives the model's output matrix the means of `summed_loss`, in place; heads with a bias or a soft cap go through `token_losses`."""
    head: Any = model.get_output_embeddings()
    if type(head) is nn.Linear and head.bias is None and rule_of(model.config).cap is None:
        head.__class__ = LossHead


class _SummedLoss(torch.autograd.Function):
    """The sum of the cross-entropies of `states_ND @ weight_VD.T`."""

    @staticmethod
    def forward(ctx: Any, states_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, learns: bool) -> tuple[Tensor, Tensor]:
        losses_N = torch.empty(len(targets_N), dtype=torch.float32, device=states_ND.device)
        states_grad = torch.empty_like(states_ND) if learns else None
        weight_grad: Tensor | None = None
        rows = max(1, min(FUSED_LOGITS[states_ND.device.type] // len(weight_VD), len(targets_N)))
        block = torch.empty(rows, len(weight_VD), dtype=torch.float32, device=states_ND.device)  # one for all: new pages cost as much as the softmax
        for start in range(0, len(targets_N), rows):
            here = slice(start, start + rows)
            part, wanted = states_ND[here], targets_N[here].unsqueeze(1)
            values = block[:len(part)]
            losses_N[here] = _losses_and_softmax(part, weight_VD, wanted, values)
            if states_grad is None:
                continue
            values.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=torch.float32))
            errors = values.to(weight_VD.dtype)
            torch.mm(errors, weight_VD, out=states_grad[here])
            if weight_grad is None:
                weight_grad = (errors.T @ part).float()
            elif weight_VD.dtype == torch.float32:
                weight_grad.addmm_(errors.T, part)
            else:
                weight_grad += errors.T @ part
        if learns and weight_grad is None:  # nothing was to be predicted
            weight_grad = torch.zeros_like(weight_VD, dtype=torch.float32)
        ctx.save_for_backward(states_grad, weight_grad)
        ctx.dtype = weight_VD.dtype
        ctx.mark_non_differentiable(losses_N)
        return losses_N.sum(), losses_N

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        states_grad, weight_grad = ctx.saved_tensors
        return states_grad.mul_(gradient), weight_grad.mul_(gradient).to(ctx.dtype), None, None


def _losses_and_softmax(states_ND: Tensor, weight_VD: Tensor, wanted_N1: Tensor, values_NV: Tensor) -> Tensor:
    """The loss of each row, [N]; leaves the softmax of the logits in `values_NV`. `logsumexp` makes the same norm, in five times the time."""
    if values_NV.dtype == states_ND.dtype:
        torch.mm(states_ND, weight_VD.T, out=values_NV)
    else:
        values_NV.copy_(states_ND @ weight_VD.T)
    largest_N1, logits_N1 = values_NV.amax(dim=1, keepdim=True), values_NV.gather(1, wanted_N1)
    torch.softmax(values_NV, dim=1, out=values_NV)
    norm_N1 = largest_N1 - values_NV.amax(dim=1, keepdim=True).log()
    return (norm_N1 - logits_N1).squeeze(1)


def summed_loss(model: PreTrainedModel, ids_BT: Tensor, targets_BT: Tensor, attention_mask_BT: Tensor | None = None,
                positions_BT: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The sum of what `token_losses` gives, with its gradient, and the losses themselves, [B, T], without."""
    head = model.get_output_embeddings()
    if not isinstance(head, LossHead):
        losses_BT = token_losses(model, ids_BT, targets_BT, attention_mask_BT, positions_BT=positions_BT)
        return losses_BT.sum(), losses_BT.detach()
    states_BTD = _states(model, ids_BT, attention_mask_BT, positions_BT)
    wanted_BT = targets_BT != IGNORED
    states_ND, factor = states_BTD[wanted_BT], rule_of(model.config).factor
    total, losses_N = head(states_ND if factor == 1.0 else states_ND * factor, targets_BT[wanted_BT])
    return total, _placed(losses_N, wanted_BT)


def token_losses(model: PreTrainedModel, ids_BT: Tensor, targets_BT: Tensor, attention_mask_BT: Tensor | None = None,
                 whole_logits: int = WHOLE_LOGITS, positions_BT: Tensor | None = None) -> Tensor:
    """The loss of each target in nats, fp32, of shape [B, T]; zero where the target is `IGNORED` (-100).

    `targets_BT` are already shifted: targets[b, t] is what should follow ids[b, :t+1]. Only positions with a target meet the output matrix.
    With `positions_BT` (and no mask) attention ends where positions begin again: see `document_positions`.
    On all stages of a pipeline but the last, the losses are zero.
    """
    states_BTD = _states(model, ids_BT, attention_mask_BT, positions_BT)
    if isinstance(model.get_output_embeddings(), Elsewhere):
        return states_BTD.squeeze(-1).float()  # zeros that carry the gradient of the stages after this one
    wanted_BT = targets_BT != IGNORED
    if bool(wanted_BT.all()):
        return _chunked(model, states_BTD.flatten(0, 1), targets_BT.flatten(), whole_logits).view_as(targets_BT)
    return _placed(_chunked(model, states_BTD[wanted_BT], targets_BT[wanted_BT], whole_logits), wanted_BT)


def _states(model: PreTrainedModel, ids_BT: Tensor, attention_mask_BT: Tensor | None, positions_BT: Tensor | None) -> Tensor:
    found: Tensor = model.base_model(input_ids=ids_BT, attention_mask=attention_mask_BT, position_ids=positions_BT, use_cache=False).last_hidden_state
    return found


def _placed(losses_N: Tensor, wanted_BT: Tensor) -> Tensor:
    return torch.zeros(wanted_BT.shape, dtype=torch.float32, device=wanted_BT.device).masked_scatter(wanted_BT, losses_N)


def document_positions(ids_BT: Tensor, bos_id: int) -> Tensor:
    """Positions that begin again at each BOS, [B, T]; from them transformers makes a mask that keeps attention within a document."""
    index_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
    starts_BT = torch.where(ids_BT == bos_id, index_T, 0).cummax(dim=1).values
    return index_T - starts_BT


def _chunked(model: PreTrainedModel, states_ND: Tensor, targets_N: Tensor, whole_logits: int) -> Tensor:
    def losses(states: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits_of(model, states), targets, reduction="none")

    rows = max(1, whole_logits // model.config.vocab_size)
    if len(targets_N) <= rows:
        return losses(states_ND, targets_N)
    parts = [checkpoint(losses, s, t, use_reentrant=False, preserve_rng_state=False)
             for s, t in zip(states_ND.split(rows), targets_N.split(rows), strict=True)]
    return torch.cat(parts)  # type: ignore[arg-type]
