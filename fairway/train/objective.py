"""What a training step minimises: cross-entropy, and what the params add to it.

Multi-token heads live here and not in the network, because they are dropped at export. Each phase of training compiles a
function of its own, so that what starts late does start (in published code the compiler had folded the flag to a constant,
#598's note on #861).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairway.lm.model import GPT
from fairway.train.config import Qat, Train
from fairway.train.qat import crown_penalty, entropy_penalty, grid_weights

Loss = Callable[[Tensor], tuple[Tensor, Tensor]]  # windows (B, T + 1) → what is minimised, and its cross-entropy alone


class Phase(NamedTuple):
    """What is on at a point of training: depth recurrence, and distillation from the averaged weights."""

    recurrent: bool
    distilled: bool


class Objective(nn.Module):
    """The network and the heads that train with it. Called with windows (B, T + 1): the loss, and its cross-entropy part."""

    def __init__(self, model: GPT, train: Train, qat: Qat):
        super().__init__()
        self.model, self.train_params, self.qat = model, train, qat
        a = model.architecture
        self.heads = nn.ParameterList(torch.zeros(a.vocabulary_size, a.width) for _ in range(train.mtp_heads))
        self.roles = {f"model.{name}": role for name, role in grid_weights(model).items()}

    def forward(self, windows: Tensor, teacher: GPT | None = None, recurrent: bool = True) -> tuple[Tensor, Tensor]:
        routing: list[Tensor] = []
        inputs, targets = windows[:, :-1], windows[:, 1:]
        hidden_BTD = self.model.hidden(inputs, losses=routing, recurrent=recurrent)
        logits_BTV = self.model.head(hidden_BTD)
        entropy = cross_entropy(logits_BTV, targets)
        loss = entropy + sum(routing)
        if self.heads:
            loss = loss + self.train_params.mtp_weight * self._further_tokens(hidden_BTD, targets)
        if teacher is not None:
            with torch.no_grad():
                teacher_logits_BTV = teacher(inputs, recurrent=recurrent)
            divergence = distillation(logits_BTV, teacher_logits_BTV, self.train_params.distill_temperature)
            loss = loss + self.train_params.distill_weight * divergence
        return loss, entropy.detach()

    def _further_tokens(self, hidden_BTD: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean cross-entropy of the heads; head k looks k + 1 tokens beyond the next one."""
        losses = [
            cross_entropy(self.model.capped(F.linear(hidden_BTD[:, :-further], head_VD)), targets_BT[:, further:])
            for further, head_VD in enumerate(self.heads, start=1)
        ]
        return torch.stack(losses).mean()

    def grid_parameters(self) -> dict[str, nn.Parameter]:
        """The weights that `quant` will round."""
        return {name: parameter for name, parameter in self.named_parameters() if name in self.roles}

    def penalty(self) -> Tensor:
        """Weighted sum of the penalties of qat.py, computed once per step because it does not depend on the text."""
        parameters = self.grid_parameters()
        total = torch.zeros((), device=next(self.parameters()).device)
        if self.qat.entropy_weight:
            total = total + self.qat.entropy_weight * entropy_penalty(parameters, self.roles, self.qat)
        if self.qat.crown_weight:
            total = total + self.qat.crown_weight * crown_penalty(parameters, self.roles, self.qat)
        return total

    def loss(self, phase: Phase, dtype: torch.dtype, teacher: GPT | None) -> Loss:
        """The loss function of a phase, with matrix products in `dtype`."""

        def loss(windows: Tensor) -> tuple[Tensor, Tensor]:
            with torch.autocast(windows.device.type, dtype=dtype, enabled=dtype != torch.float32):
                return self(windows, teacher if phase.distilled else None, phase.recurrent)

        return loss


def cross_entropy(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Mean nats per token."""
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


def distillation(student_BTV: Tensor, teacher_BTV: Tensor, temperature: float) -> Tensor:
    """T²·KL(teacher ‖ student) per token (Hinton et al. 2015). #1185 divided by sequences only: 2,048 times too much."""
    student, teacher = F.log_softmax(student_BTV / temperature, -1), F.log_softmax(teacher_BTV / temperature, -1)
    return temperature**2 * F.kl_div(student, teacher, log_target=True, reduction="none").sum(-1).mean()


def compiled(loss: Loss, example: Tensor) -> Loss:
    """The loss function compiled, forward and backward run once on an example, so that no timed step compiles.

    Without a working C++ compiler torch cannot compile for the CPU; then the function itself.
    """
    from torch._inductor.exc import InductorError  # here, because it takes as long to import as all of torch

    fast = torch.compile(loss)
    try:
        fast(example)[0].backward()
    except InductorError:
        return loss
    return fast
