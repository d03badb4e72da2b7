"""Pipeline parallelism for transformers' models: each stage holds some blocks, the first one also the embeddings, the last one norm and output matrix.

Every stage runs the same function of the same model; the blocks of others are passed through, and what enters and leaves a stage goes through
autograd: in place of the embeddings a later stage receives its predecessor's output, and in place of the norm an earlier one sends its own, whose
gradient it receives in the backward pass. So any loss that goes through `token_losses` works, whatever its shapes; on stages before the last it is
zero and only carries the gradient. The trainer runs micro-batches one forward, one backward (Narayanan et al. 2019): `Ranks.pipeline` - 1 - stage of
them are begun before the first is taken back.

Ours rather than DeepSpeed's PipelineModule, which needs the model as a list of layers with one fixed shape between them, and no ZeRO above 1.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import PreTrainedModel

from allam.engine.groups import Groups


class _Channel:
    """Sends tensors to a neighbour without waiting, but never far ahead of what it has taken."""

    def __init__(self, peer: int, group: Any, ahead: int) -> None:
        self._peer, self._group, self._ahead = peer, group, ahead
        self._under_way: deque[tuple[Any, Tensor]] = deque()

    def send(self, tensor: Tensor) -> None:
        """Hands a copy over."""
        if len(self._under_way) >= self._ahead:
            self._under_way.popleft()[0].wait()
        kept = tensor.detach().clone(memory_format=torch.contiguous_format)
        self._under_way.append((dist.isend(kept, self._peer, group=self._group), kept))

    def receive(self, like: Tensor) -> Tensor:
        """The next tensor that the neighbour sent, of the shape and type of `like`."""
        dist.recv(like, self._peer, group=self._group)
        return like


class Elsewhere(nn.Module):
    """A block that another stage holds."""

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """Passes on what it was given."""
        return hidden_states


class _Receive(nn.Module):
    """In the place of the embeddings: the previous stage's output."""

    def __init__(self, onward: _Channel, back: _Channel, width: int, like: nn.Parameter) -> None:
        super().__init__()
        self._onward, self._back, self._width = onward, back, width
        self._like = [like]  # in a list, lest the module count it as its own

    def forward(self, ids_BT: Tensor) -> Tensor:
        """[B, T, D], whose gradient goes back to where it came from."""
        like = self._like[0]
        received = self._onward.receive(torch.empty((*ids_BT.shape, self._width), dtype=like.dtype, device=like.device))
        if torch.is_grad_enabled():
            received.requires_grad_().register_hook(self._back.send)
        return received


class _Sent(torch.autograd.Function):
    """Zeros of shape [B, T, 1] that stand for what was sent to the next stage."""

    @staticmethod
    def forward(ctx: Any, states_BTD: Tensor, onward: _Channel, back: _Channel) -> Tensor:
        ctx.back, ctx.like = back, (states_BTD.shape, states_BTD.dtype, states_BTD.device)
        onward.send(states_BTD)
        return states_BTD.new_zeros((*states_BTD.shape[:-1], 1))

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        shape, dtype, device = ctx.like
        return ctx.back.receive(torch.empty(shape, dtype=dtype, device=device)), None, None


class _Send(nn.Module):
    """In the place of the last norm."""

    def __init__(self, onward: _Channel, back: _Channel) -> None:
        super().__init__()
        self._channels = onward, back

    def forward(self, states_BTD: Tensor) -> Tensor:
        """[B, T, 1], zeros."""
        sent: Tensor = _Sent.apply(states_BTD, *self._channels)
        return sent


def cut(model: PreTrainedModel, groups: Groups) -> dict[str, int]:
    """Leaves each rank its stage of the model, in place; returns the stage of each parameter.

    The model must be one that `allam.layouts.refusal` lets pass. Where the blocks don't divide by the stages, the first ones hold one more, since the
    last has the output matrix.
    """
    ranks, base = groups.ranks, model.base_model
    blocks = base.get_submodule("layers")
    assert isinstance(blocks, nn.ModuleList)
    stages, count = ranks.pipeline, len(blocks)
    holder = [i * stages // count for i in range(count)]
    prefix, last = f"{model.base_model_prefix}.", stages - 1

    def stage_of(name: str) -> int:
        words = name.removeprefix(prefix).split(".")
        return {"embed_tokens": 0, "layers": holder[int(words[1])] if words[0] == "layers" else 0}.get(words[0], last)

    found = {name: stage_of(name) for name, _ in model.named_parameters()}
    for i in range(count):
        if holder[i] != ranks.stage:
            blocks[i] = Elsewhere()
    like = next(blocks[holder.index(ranks.stage)].parameters())
    before, after = groups.neighbour(-1), groups.neighbour(1)
    if ranks.stage > 0:
        model.set_input_embeddings(_Receive(_Channel(before, groups.onward, stages), _Channel(before, groups.back, stages), model.config.hidden_size, like))
    if ranks.stage < last:
        base.norm = _Send(_Channel(after, groups.onward, stages), _Channel(after, groups.back, stages))
        model.set_output_embeddings(Elsewhere())
    return found
