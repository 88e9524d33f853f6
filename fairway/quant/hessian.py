"""What an error of a weight costs: a second-order estimate of the loss, measured on the network that is quantised.

K-FAC (Martens & Grosse 2015, arXiv 1503.05671) with only the diagonal of its factor on the output's side: GPTQ's
Hessian says which columns of a matrix matter, the gradients of its outputs say which rows do. The labels are drawn from
the network's own predictions: gradients of the true next tokens would estimate another matrix (the empirical Fisher).
The network runs as it does in use, repeated layers and routers included: the published recurrent system took Hessians
from a network without the recurrence and lost by it (#1406).
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
    """An error Δ (R, C) of a weight raises the loss by about ½ Σ_r rows_r · Δ_r · columns · Δ_rᵀ nats a token. Float64.

    Of a linear layer or the head: columns = mean of x xᵀ over the uses, that is, over the inputs x it was given in any
    pass; rows = Σ (∂loss/∂y_r)² over the uses / tokens. A table has no input but has gradients, so the sides change
    places: columns = mean of g gᵀ over the lookups, g = ∂loss/∂row; rows = lookups of the row / tokens.
    What two uses of a weight do together is left out. All zero where no token came by.
    """

    columns_CC: Tensor
    rows_R: Tensor


@dataclass(frozen=True)
class _Sums:
    """Running sums of one weight (R, C). Products of one batch are float32, sums float64: millions of uses lose nothing."""

    columns_CC: Tensor
    rows_R: Tensor
    uses: Tensor  # scalar, float64 as well so that ranks can sum it

    @classmethod
    def of(cls, weight_RC: Tensor) -> "_Sums":
        R, C = weight_RC.shape
        return cls(*(torch.zeros(shape, dtype=torch.float64, device=weight_RC.device) for shape in ((C, C), (R,), ())))

    def add_layer(self, x_NC: Tensor, gradient_NR: Tensor, routed: bool = False) -> None:
        if routed:  # a router pads its batch; nothing comes back from a place that it left empty
            x_NC = x_NC[gradient_NR.any(-1)]
        self.columns_CC.add_(x_NC.T @ x_NC)
        self.rows_R.add_(gradient_NR.square().sum(0))
        self.uses.add_(len(x_NC))

    def add_table(self, index_N: Tensor, gradient_NC: Tensor) -> None:
        self.columns_CC.add_(gradient_NC.T @ gradient_NC)
        self.rows_R.add_(torch.bincount(index_N, minlength=len(self.rows_R)))
        self.uses.add_(len(index_N))


def collect(
    model: GPT,
    batches: Iterable[LongTensor],
    reduce: Callable[[Tensor], object] = lambda tensor: None,
    seed: int = 0,
) -> dict[str, Curvature]:
    """The curvature of the weights of all linear layers, tables and the head, in the order of the network.

    `batches` are tokens (B, T), int64. `reduce` sums a tensor over the ranks in place; each rank calls it equally often,
    whatever batches it has. A tied table gets the head's curvature, as in #1394. Whatever happens, the model, in
    evaluation mode, is left without hooks and gradients; between batches as well, so that it may generate them itself.
    """
    sums = {
        f"{name}.weight": _Sums.of(module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding)
    }
    head = _head_name(model)
    for tokens_BT in batches:
        tokens_BT = tokens_BT.to(sums[head].uses.device)
        with _observed(model, sums), torch.enable_grad(), torch.autocast(tokens_BT.device.type, enabled=False):
            _loss(model, tokens_BT, sums[head], seed).backward()
    for total in sums.values():
        for tensor in (total.columns_CC, total.rows_R, total.uses):
            reduce(tensor)
    tokens = sums[head].uses
    return {
        name: Curvature(total.columns_CC / total.uses.clamp(min=1), total.rows_R / tokens.clamp(min=1))
        for name, total in sums.items()
    }


def draw_labels(logits_NV: Tensor, tokens_BT: LongTensor, seed: int) -> Tensor:
    """A label (N,) from each prediction, on the CPU. The batch's own tokens and `seed` seed the generator, so that a batch
    gets the same labels on any rank and in any order."""
    generator = torch.Generator().manual_seed(zlib.crc32(tokens_BT.cpu().numpy().tobytes(), seed))
    return torch.multinomial(logits_NV.detach().float().softmax(-1).cpu(), 1, generator=generator)[:, 0]


def evenly_spaced(total: int, length: int, count: int) -> list[int]:
    """Starts of `count` windows of `length` tokens, the first at the start and the last at the end of `total` tokens."""
    return [index * (total - length) // max(count - 1, 1) for index in range(count)]


def _head_name(model: GPT) -> str:
    return "stream.embedding.weight" if model.unembedding is None else "unembedding.weight"


def _loss(model: GPT, tokens_BT: LongTensor, head: _Sums, seed: int) -> Tensor:
    """Cross-entropy of drawn labels, summed over the tokens. The head's gradients are of the logits before the cap."""
    hidden_ND = model.hidden(tokens_BT).flatten(0, 1)
    logits_NV = F.linear(hidden_ND, model.get_parameter(_head_name(model)))
    logits_NV.register_hook(partial(head.add_layer, hidden_ND.detach()))
    capped_NV = model.capped(logits_NV)
    return F.cross_entropy(capped_NV, draw_labels(capped_NV, tokens_BT, seed).to(capped_NV.device), reduction="sum")


@contextmanager
def _observed(model: GPT, sums: dict[str, _Sums]) -> Iterator[None]:
    """The model with hooks that add to `sums` when gradients come by. Weights get none, a third of the products:
    gradients start from what is looked up in the tables, and everything else follows."""
    routed = {layer for block in model.blocks if block.router is not None for layer in block.feed_forward.modules()}
    with ExitStack() as undo:
        for parameter in model.parameters():
            undo.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(False)
        for name, module in model.named_modules():
            if isinstance(module, nn.Embedding):
                own = None if f"{name}.weight" == _head_name(model) else sums[f"{name}.weight"]
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
