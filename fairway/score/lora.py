"""LoRA: a matrix stays fixed, and a product of two narrow ones that is added to it learns (Hu et al. 2022).

W = base + alpha/rank · B·A. The product is added into the network's own matrices after each step, so scoring runs at the
speed of the plain network and knows nothing of adapters; the gradients of A and B follow from that of W by the chain
rule. The base is kept and never changes. A layer that runs more than once has one adapter (in #1530 one per pass).
"""

import torch
from torch import Tensor, nn

from fairway.lm.model import GPT
from fairway.lm.parameters import row_of

SEED = 0  # of A: a constant, so that the decoder starts where the encoder did


def adapted_names(model: GPT, targets: list[str]) -> list[str]:
    """Names of the matrices that `targets` (of `ttt.lora_targets`) stand for, in the order of the network."""
    return [name for name, _ in model.named_parameters() if row_of(name).lora in targets]


class Adapters:
    """For matrices W (R, C), changed in place: A (rank, C), random at first, and B (R, rank), zero at first."""

    def __init__(self, weights: list[nn.Parameter], rank: int, alpha: float):
        self.weights, self.scale = weights, alpha / rank
        self.bases = [weight.detach().clone() for weight in weights]
        generator = torch.Generator().manual_seed(SEED)
        shapes = [weight.shape for weight in weights]
        bounded = [torch.empty(rank, columns).uniform_(-1, 1, generator=generator) * columns**-0.5 for _, columns in shapes]
        self.first_a = [a.to(weight) for a, weight in zip(bounded, weights, strict=True)]
        self.a = [nn.Parameter(a.clone()) for a in self.first_a]
        self.b = [nn.Parameter(weight.new_zeros(len(weight), rank)) for weight in weights]

    def factors(self) -> list[nn.Parameter]:
        """What the optimizer steps: A of every matrix, then B of every matrix."""
        return self.a + self.b

    @torch.no_grad()
    def gradients(self, of_weights: list[Tensor]) -> list[Tensor]:
        """Gradients of the factors, given those of the matrices."""
        of_a = [self.scale * (b.T @ gradient) for b, gradient in zip(self.b, of_weights, strict=True)]
        return of_a + [self.scale * (gradient @ a.T) for a, gradient in zip(self.a, of_weights, strict=True)]

    @torch.no_grad()
    def merge(self) -> None:
        """Write base + scale · B·A into the network."""
        for weight, base, a, b in zip(self.weights, self.bases, self.a, self.b, strict=True):
            torch.addmm(base, b, a, alpha=self.scale, out=weight.data)

    @torch.no_grad()
    def restart(self) -> None:
        """Reset both factors, A too: no document learns from another (#1530 keeps A, so there they do)."""
        torch._foreach_copy_(self.a, self.first_a)
        torch._foreach_zero_(self.b)
        self.merge()
