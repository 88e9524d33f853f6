"""Test-time training written out, the oracle of test_ttt.py: windows by hand, torch's optimizers, Muon one tensor at a time."""

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F

from fairway.optim import muon
from fairway.score import ttt
from fairway.score.config import Ttt
from tests.plain_settings import TTT

SETTINGS = dataclasses.replace(TTT, chunk_tokens=54, sequences_per_step=3, gradient_clip=0.5)
TEXT = np.random.default_rng(0).integers(0, 64, 163, dtype=np.uint16)  # three chunks of 54: three windows of 16 and a rest of 6
ADAMW = {"optimizer": "adamw", "lr": 0.001}
MUON = {"optimizer": "muon", "lr": 0.01, "momentum": 0.0}


def changed(**changes) -> Ttt:
    return dataclasses.replace(SETTINGS, **changes)


def learn(model, settings: Ttt, text=TEXT, nats: float = 2.0, **ranks) -> ttt.TestTimeTraining:
    """Go through a text as scorers do, chunk by chunk without the last; every token costs `nats`."""
    training = ttt.TestTimeTraining(model, settings, len(text) - 1, **ranks)
    with torch.no_grad():
        for start in range(0, len(text) - 1 - training.chunk, training.chunk):
            training.learn(text[start : start + training.chunk + 1], np.full(training.chunk, nats, np.float32))
    return training


def weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def loss(model, batch: list[tuple[int, int, int]]) -> torch.Tensor:
    """Mean cross-entropy of targets counted..last of windows that begin at first, (first, counted, last) in TEXT."""
    losses = []
    for first, counted, last in batch:
        tokens = torch.from_numpy(TEXT[first : last + 1].astype(np.int64))
        rows = model(tokens[None, :-1])[0, counted - first - 1 :]
        losses.append(F.cross_entropy(rows, tokens[counted - first :], reduction="none"))
    return torch.cat(losses).mean()


def batches(chunk: int, settings: Ttt) -> list[list[tuple[int, int, int]]]:
    """The steps of a chunk of 54: windows of 16 targets, the rest of 6 at the end of a window that reaches back."""
    start = 54 * chunk
    found = [(start + i, start + i + 1, start + i + 16) for i in (0, 16, 32)] + [(start + 38, start + 49, start + 54)]
    size = settings.sequences_per_step
    return [found[i : i + size] for i in range(0, 4, size)] * settings.epochs


def newton_schulz(gradient: torch.Tensor) -> torch.Tensor:
    """Three iterations X ← aX + (bA + cA²)X with A = XXᵀ of the shorter side, in float64."""
    x = gradient.double() / (gradient.double().norm() * muon.margin(muon.COEFFICIENTS["newton_schulz"][:3]))
    x = x.T if len(x) > x.shape[1] else x
    for _ in range(3):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.T if len(gradient) > gradient.shape[1] else x).float()


class LoopMuon:
    """#999's optimizer, one tensor at a time."""

    def __init__(self, parameters: list, lr: float, momentum: float):
        self.parameters, self.lr, self.momentum = parameters, lr, momentum
        self.buffers = [0.0] * len(parameters)

    @torch.no_grad()
    def step(self) -> None:
        for i, parameter in enumerate(self.parameters):
            self.buffers[i] = self.momentum * self.buffers[i] + parameter.grad
            parameter -= self.lr * (newton_schulz(self.buffers[i]) if parameter.ndim > 1 else self.buffers[i])


def peer(parameters: list, s: Ttt):
    """The optimizer of the settings, by torch or by a loop; SGD here has no weight decay."""
    match s.optimizer:
        case "adamw":
            return torch.optim.AdamW(parameters, s.lr, (s.momentum, 0.99), weight_decay=s.weight_decay, foreach=False)
        case "muon":
            return LoopMuon(parameters, s.lr, s.momentum)
    return torch.optim.SGD(parameters, s.lr, s.momentum, foreach=False)
