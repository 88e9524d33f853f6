"""Curvature of the loss in the weights: a second-order estimate of the cost of rounding errors, measured on the network.

K-FAC (Martens & Grosse 2015, arXiv 1503.05671) with only the diagonal of the output-side factor: GPTQ's Hessian weighs the
columns of a matrix, the Fisher information of its outputs weighs the rows. Labels are sampled from the network's own
predictions; gradients of the true next tokens would estimate a different matrix, the empirical Fisher. The network runs as
it does in use, including repeated layers and routers: the published recurrent system measured Hessians without the
recurrence, which made it worse (#1406).
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import LongTensor, Tensor, nn

from fairway.lm.model import GPT


@dataclass(frozen=True)
class Curvature:
    """An error Δ (R, C) of a weight raises the loss by about ½ Σ_r fisher_r · Δ_r · hessian · Δ_rᵀ nats per token. Float64.

    Linear layers and the head: hessian = mean of x xᵀ, the second moment of the inputs x, over all uses in all passes;
    fisher = Σ (∂loss/∂y_r)² over the uses, divided by the tokens. A table has no inputs but has gradients, so the two sides
    swap: hessian = mean of g gᵀ over the lookups, g = ∂loss/∂row; fisher = lookups of the row / tokens.
    Interactions between two uses of a weight are neglected. All zero where no token was seen.
    """

    hessian_CC: Tensor
    fisher_R: Tensor


@dataclass(frozen=True)
class _Sums:
    """Running sums of one weight (R, C): products within a batch in float32, sums in float64, precise for millions of uses."""

    hessian_CC: Tensor
    fisher_R: Tensor
    uses: Tensor  # scalar, float64 as well so that ranks can sum it

    @classmethod
    def of(cls, weight_RC: Tensor) -> "_Sums":
        R, C = weight_RC.shape
        return cls(*(torch.zeros(shape, dtype=torch.float64, device=weight_RC.device) for shape in ((C, C), (R,), ())))

    def add_layer(self, x_NC: Tensor, gradient_NR: Tensor, routed: bool = False) -> None:
        if routed:  # a router pads its batch, and padding has no gradient
            x_NC = x_NC[gradient_NR.any(-1)]
        self.hessian_CC.add_(x_NC.T @ x_NC)
        self.fisher_R.add_(gradient_NR.square().sum(0))
        self.uses.add_(len(x_NC))

    def add_table(self, index_N: Tensor, gradient_NC: Tensor) -> None:
        self.hessian_CC.add_(gradient_NC.T @ gradient_NC)
        self.fisher_R.add_(torch.bincount(index_N, minlength=len(self.fisher_R)))
        self.uses.add_(len(index_N))


def collect(
    model: GPT,
    batches: Iterable[LongTensor],
    reduce: Callable[[Tensor], object] = lambda tensor: None,
    seed: int = 0,
) -> dict[str, Curvature]:
    """The curvature of the weights of all linear layers, tables and the head, by name, in the order of the network.

    The model is in evaluation mode; `batches` are tokens (B, T), int64. `reduce` sums a tensor over the ranks in place; every
    rank calls it equally often, whatever batches it has. A tied table gets the head's curvature, as in #1394. Hooks are
    removed and gradients restored after every batch, also after errors, so that the model may generate the batches itself.
    """
    sums = {
        f"{name}.weight": _Sums.of(module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding)
    }
    head = model.lm_head_name
    for tokens_BT in batches:
        tokens_BT = tokens_BT.to(sums[head].uses.device)
        with _observed(model, sums), torch.enable_grad(), torch.autocast(tokens_BT.device.type, enabled=False):
            _loss(model, tokens_BT, sums[head], seed).backward()
    for total in sums.values():
        for tensor in (total.hessian_CC, total.fisher_R, total.uses):
            reduce(tensor)
    tokens = sums[head].uses
    return {
        name: Curvature(total.hessian_CC / total.uses.clamp(min=1), total.fisher_R / tokens.clamp(min=1))
        for name, total in sums.items()
    }


def draw_labels(logits_NV: Tensor, tokens_BT: LongTensor, seed: int) -> Tensor:
    """One label (N,) sampled from each prediction, on the CPU. The batch's tokens and `seed` seed the generator, so that a
    batch gets the same labels on any rank and in any order."""
    generator = torch.Generator().manual_seed(zlib.crc32(tokens_BT.cpu().numpy().tobytes(), seed))
    return torch.multinomial(logits_NV.detach().float().softmax(-1).cpu(), 1, generator=generator)[:, 0]


def evenly_spaced(total: int, length: int, count: int) -> list[int]:
    """Starts of `count` windows of `length` tokens; the first begins, and the last ends, with the `total` tokens."""
    return [index * (total - length) // max(count - 1, 1) for index in range(count)]


def _loss(model: GPT, tokens_BT: LongTensor, head: _Sums, seed: int) -> Tensor:
    """Cross-entropy of sampled labels, summed over the tokens. The head's gradients are of the logits before the softcap."""
    hidden_ND = model.hidden(tokens_BT).flatten(0, 1)
    logits_NV = F.linear(hidden_ND, model.lm_head)
    logits_NV.register_hook(partial(head.add_layer, hidden_ND.detach()))
    capped_NV = model.capped(logits_NV)
    return F.cross_entropy(capped_NV, draw_labels(capped_NV, tokens_BT, seed).to(capped_NV.device), reduction="sum")


@contextmanager
def _observed(model: GPT, sums: dict[str, _Sums]) -> Iterator[None]:
    """Attaches hooks that add to `sums` during the backward pass. Weights get no gradients, which saves a third of the
    matrix products: the graph starts at the rows looked up in the tables."""
    routed = {layer for block in model.blocks if block.router is not None for layer in block.feed_forward.modules()}
    with ExitStack() as undo:
        for parameter in model.parameters():
            undo.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(False)
        for name, module in model.named_modules():
            if isinstance(module, nn.Embedding):
                own = None if f"{name}.weight" == model.lm_head_name else sums[f"{name}.weight"]
                undo.callback(module.register_forward_hook(partial(_watch_table, own)).remove)
            elif isinstance(module, nn.Linear):
                watch = partial(_watch_layer, sums[f"{name}.weight"], module in routed)
                undo.callback(module.register_forward_hook(watch).remove)
        yield


def _watch_table(own: _Sums | None, _: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
    output.requires_grad_()
    if own is not None:
        output.register_hook(lambda gradient: own.add_table(inputs[0].flatten(), gradient.flatten(0, -2)))


def _watch_layer(own: _Sums, routed: bool, _: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
    x_NC = inputs[0].detach().flatten(0, -2)
    output.register_hook(lambda gradient: own.add_layer(x_NC, gradient.flatten(0, -2), routed))
