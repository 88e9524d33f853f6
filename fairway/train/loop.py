"""One training step, and all the state that a run of them has.

Everything a run is made of lives in `Run`, whose state_dict is what survives a crash: weights, both optimizers, the
weight average, the step and the clock. Learning rates depend on the fraction of training done, which is the larger of
steps over `train.steps` and seconds over `train.wall_clock_seconds`: a machine that is too slow still warms down.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._inductor.exc import InductorError

from fairway.errors import InputError
from fairway.lm.model import GPT, linear_names
from fairway.optim.average import WeightAverage
from fairway.optim.muon import Muon
from fairway.optim.schedule import momentum, warmdown
from fairway.train.config import Train


def precision(config: Train, device: torch.device) -> torch.dtype:
    """The type of the matrix products: bf16 where the machine multiplies in bf16, unless `train.precision` says."""
    if config.precision == "auto":
        return default_precision(device)
    return torch.bfloat16 if config.precision == "bf16" else torch.float32


def default_precision(device: torch.device) -> torch.dtype:
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def cross_entropy(model: nn.Module, windows: Tensor, dtype: torch.dtype) -> Tensor:
    """Mean nats a token of windows (B, T + 1), the matrix products in `dtype`."""
    with torch.autocast(windows.device.type, dtype=dtype, enabled=dtype != torch.float32):
        logits = model(windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def compiled(loss_function: Callable[[Tensor], Tensor], config: Train, example: Tensor) -> Callable[[Tensor], Tensor]:
    """The loss function compiled, forward and backward warmed up on an example, so that no clock sees the compiler.

    Without a working C++ compiler torch cannot compile for the CPU: then the function as it is.
    """
    if not config.compile:
        return loss_function
    fast = torch.compile(loss_function)
    try:
        fast(example).backward()
    except InductorError:
        return loss_function
    return fast


def optimizers(model: GPT, config: Train, dtype: torch.dtype) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of linear layers, AdamW for tables, vectors and scalars; `base_lr` is what warms down."""
    parameters = dict(model.named_parameters())
    matrices = [parameters.pop(name) for name in linear_names(model)]
    tables = [parameters.pop(name) for name in list(parameters) if name.endswith(("embedding.weight", "table.weight"))]
    muon = Muon(matrices, config.muon_lr, config.momentum, config.weight_decay, dtype)
    groups = [
        {"params": tables, "lr": config.embedding_lr},
        {"params": list(parameters.values()), "lr": config.scalar_lr},
    ]
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, weight_decay=config.weight_decay, fused=True)
    for group in muon.param_groups + adamw.param_groups:
        group["base_lr"] = group["lr"]
    return [muon, adamw]


@dataclass
class Run:
    """A training run at some step."""

    model: GPT
    optimizers: list[torch.optim.Optimizer]
    average: WeightAverage
    step: int = 0
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)  # of the loss curve
    recent: list[float] = field(default_factory=list)  # losses since its last point

    @classmethod
    def start(cls, model: GPT, config: Train, dtype: torch.dtype) -> "Run":
        return cls(model, optimizers(model, config, dtype), WeightAverage(model, config.ema_decay))

    def done(self, config: Train) -> float:
        """The fraction of training that is behind, 0 to 1."""
        return min(1.0, max(self.step / config.steps, self.seconds / config.wall_clock_seconds))

    def state_dict(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
            "recent": self.recent,
        }

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.average.load_state_dict(state["average"])
        self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]
        self.recent = state["recent"]


def train_step(run: Run, windows: Tensor, config: Train, loss_function: Callable[[Tensor], Tensor]) -> float:
    """One optimizer step on windows (B, T + 1). Returns the loss in nats a token; raises InputError if it is not finite."""
    multiplier = warmdown(run.done(config), config.warmdown_fraction)
    for group in run.optimizers[0].param_groups:
        group["momentum"] = momentum(run.step, config.momentum, config.momentum_warmup_steps)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * multiplier
        optimizer.zero_grad(set_to_none=True)
    loss = loss_function(windows)
    if not torch.isfinite(loss):
        raise InputError(
            f"the training loss is {loss.item()} at step {run.step}; the last good checkpoint is kept: "
            "lower train.muon_lr, train.embedding_lr or train.scalar_lr"
        )
    loss.backward()
    if config.gradient_clip:
        nn.utils.clip_grad_norm_(run.model.parameters(), config.gradient_clip)
    for optimizer in run.optimizers:
        optimizer.step()
    run.average.update(run.model)
    run.step += 1
    return loss.item()
