"""One training step, and the state that it advances.

Schedules depend on the fraction of training done, the larger of steps over `train.steps` and seconds over
`train.wall_clock_seconds`: a machine that is too slow still warms down. With several ranks each works on its part of every
step's sequences and of Muon's matrices.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fairway.errors import InputError
from fairway.lm.model import GPT
from fairway.optim.average import Grokfast, WeightAverage
from fairway.optim.muon import Muon
from fairway.optim.schedule import momentum, warmdown, weight_decay_factor
from fairway.train.config import Qat, Train
from fairway.train.groups import optimizers
from fairway.train.objective import Loss, Objective, Phase
from fairway.train.qat import on_grid, prune_, prune_target
from fairway.train.ranks import SINGLE_PROCESS, Ranks


@dataclass
class TrainState:
    """A training run at some step; its `state_dict` is what survives a crash."""

    objective: Objective
    muon: Muon
    adamw: torch.optim.AdamW
    average: WeightAverage | None
    grokfast: Grokfast | None
    teacher: GPT | None
    train: Train
    qat: Qat
    dtype: torch.dtype  # of the matrix products
    step: int = 0
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)  # of the loss curve
    recent: list[float] = field(default_factory=list)  # losses since its last point
    distilled_steps: int = 0

    @classmethod
    def start(cls, model: GPT, train: Train, qat: Qat, dtype: torch.dtype) -> "TrainState":
        device = next(model.parameters()).device
        objective = Objective(model, train, qat).to(device)
        average = teacher = None
        if train.average != "none":
            average = WeightAverage(model, train.ema_decay if train.average == "ema" else None)
        if train.distill_weight:
            teacher = GPT(model.architecture).to(device).requires_grad_(False)
            teacher.load_state_dict(model.state_dict())
        grokfast = Grokfast(train.grokfast_weight, train.grokfast_decay) if train.grokfast_weight else None
        return cls(objective, *optimizers(objective, train, dtype), average, grokfast, teacher, train, qat, dtype)

    @property
    def done(self) -> float:
        """The fraction of training that is done, 0 to 1."""
        return min(1.0, max(self.step / self.train.steps, self.seconds / self.train.wall_clock_seconds))

    @property
    def stopped_by_clock(self) -> bool:
        """Whether `train.wall_clock_seconds` ended training before its last step: the weights then depend on the machine."""
        return self.done == 1 and self.step < self.train.steps

    @property
    def tokens(self) -> int:
        """Trained on so far."""
        return self.step * self.train.tokens_per_step

    def record(self, loss: float, steps_per_point: int) -> bool:
        """Take note of a step's loss; True where the loss curve has got a new point, the mean since the last one."""
        self.recent.append(loss)
        if self.step % steps_per_point and self.done < 1:
            return False
        self.history.append({"step": self.step, "loss": round(sum(self.recent) / len(self.recent), 5)})
        self.recent = []
        return True

    @property
    def multiplier(self) -> float:
        return self.multiplier_at(self.done)

    def multiplier_at(self, done: float) -> float:
        """The learning-rate multiplier at this fraction of training."""
        return warmdown(done, self.train.warmdown_fraction, self.train.warmdown_shape, self.train.min_lr_fraction)

    def phase_at(self, done: float) -> Phase:
        distilled = self.teacher is not None and below(self.multiplier_at(done), self.train.distill_start)
        return Phase(done >= self.train.recurrence_start, distilled)

    def phases(self) -> list[Phase]:
        """Every phase from here to the end, in order: what has to be compiled.

        What has started stays on, so no other phase can occur, also where the clock is ahead of the steps: the present
        phase, those just before and at the start of the recurrence, and the last one.
        """
        start = self.train.recurrence_start
        ahead = [done for done in (math.nextafter(start, 0), start, math.nextafter(1, 0)) if done > self.done]
        return list(dict.fromkeys(self.phase_at(done) for done in (self.done, *ahead)))

    def exported(self) -> dict[str, Tensor]:
        """The weights that training hands on: averaged as `train.average` says, pruned to `qat.prune_fraction`."""
        model = self.objective.model
        state = {name: parameter.detach() for name, parameter in model.named_parameters()}
        if self.train.average == "ema":
            state = {name: tensor.clone() for name, tensor in self.average.shadow.items()}
        elif self.train.average == "swa":  # the last step is a snapshot too, wherever the clock has put it
            fraction = 1 / (self.average.updates + 1)
            state = {name: torch.lerp(tensor, state[name].float(), fraction) for name, tensor in self.average.shadow.items()}
        if self.qat.prune_fraction:
            prune_([state[name.removeprefix("model.")] for name in self.objective.roles], self.qat.prune_fraction)
        return state

    def parts(self) -> dict[str, nn.Module | Muon | torch.optim.AdamW | WeightAverage | Grokfast]:
        names = ("objective", "muon", "adamw", "average", "grokfast", "teacher")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def state_dict(self) -> dict:
        counters = {name: getattr(self, name) for name in ("step", "seconds", "history", "recent", "distilled_steps")}
        return {name: part.state_dict() for name, part in self.parts().items()} | {"counters": counters}

    def load_state_dict(self, state: dict) -> None:
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        for name, value in state["counters"].items():
            setattr(self, name, value)


def below(multiplier: float, start: float) -> bool:
    """Whether what starts once the learning-rate multiplier has fallen to `start` is on; with a start of 0 it never is."""
    return start > 0 and multiplier <= start


def train_step(state: TrainState, windows: Tensor, loss_of: Callable[[Phase], Loss], ranks: Ranks = SINGLE_PROCESS) -> float:
    """One optimizer step on this rank's windows (B, T + 1), in passes of at most `train.tokens_per_pass`.

    Returns the mean cross-entropy over all ranks in nats per token. Raises InputError if the loss of a rank is not finite.
    """
    schedule(state)
    if snapshot_due(state):
        state.average.update(state.objective.model)
    refresh_teacher(state)
    state.objective.zero_grad(set_to_none=True)
    entropy = backward(state, windows, loss_of(state.phase_at(state.done)), ranks)
    reduce_gradients(state, ranks)
    state.adamw.step()
    state.muon.step()
    state.step += 1
    if state.qat.prune_fraction and state.step % state.qat.prune_every == 0:
        prune_(state.objective.grid_parameters().values(), prune_target(state.done, state.qat))
    if state.train.average == "ema":
        state.average.update(state.objective.model)
    return entropy


def snapshot_due(state: TrainState) -> bool:
    """Whether SWA takes a snapshot: every `swa_every` steps late in the warm-down (#549 takes them and never uses them)."""
    due = state.step > 0 and state.step % state.train.swa_every == 0
    return state.train.average == "swa" and due and state.multiplier <= state.train.swa_start


def schedule(state: TrainState) -> None:
    """Set learning rates, momentum and weight decay for the next step."""
    decay = weight_decay_factor(state.done, state.train.weight_decay_final, state.train.weight_decay_taper)
    for group in state.muon.param_groups + state.adamw.param_groups:
        group["lr"] = group["base_lr"] * state.multiplier
        group["weight_decay"] = group["base_weight_decay"] * decay
    for group in state.muon.param_groups:
        group["momentum"] = momentum(
            state.step, state.train.momentum_start, state.train.momentum, state.train.momentum_warmup_steps
        )


@torch.no_grad()
def refresh_teacher(state: TrainState) -> None:
    """Copy the averaged weights into the teacher when distillation starts and every `train.distill_every` steps after."""
    if state.phase_at(state.done).distilled:
        if state.distilled_steps % state.train.distill_every == 0:
            state.teacher.load_state_dict(state.average.shadow)
        state.distilled_steps += 1


def backward(state: TrainState, windows: Tensor, loss: Loss, ranks: Ranks) -> float:
    """Compute the gradients of this rank's mean loss; return the mean cross-entropy of all ranks. Raises InputError."""
    passes = state.train.passes(ranks.size)
    total = entropy = 0.0
    rounding = state.objective.roles and below(state.multiplier, state.qat.start)
    with on_grid(state.objective.grid_parameters(), state.objective.roles, state.qat) if rounding else nullcontext():
        for part in windows.chunk(passes):
            part_loss, part_entropy = loss(part)
            (part_loss / passes).backward()
            total, entropy = total + part_loss.detach() / passes, entropy + part_entropy / passes
    penalised = state.objective.roles and (state.qat.entropy_weight or state.qat.crown_weight)
    if penalised and below(state.multiplier, state.qat.penalty_start):
        penalty = state.objective.penalty()
        penalty.backward()
        total = total + penalty.detach()
    everyone = ranks.gather(*torch.stack((total, entropy)).tolist())
    sums = [sum(column) / ranks.size for column in zip(*everyone, strict=True)]
    if not torch.isfinite(torch.tensor(sums)).all():
        raise InputError(
            f"the training loss is {sums[0]} at step {state.step}; the last good checkpoint is kept: "
            "lower train.muon_lr, train.embedding_lr or train.scalar_lr"
        )
    return sums[1]


def reduce_gradients(state: TrainState, ranks: Ranks) -> None:
    """Clip, amplify slow gradients, and average over the ranks: a matrix of Muon on the rank that orthogonalises it.

    Clipping each rank's own gradients before the reduction is what the published code does; Grokfast acts after that.
    """
    clip = state.train.gradient_clip
    if clip and state.train.clip_before_reduction:
        nn.utils.clip_grad_norm_(state.objective.parameters(), clip)
    if state.grokfast is not None:
        state.grokfast.apply(state.objective.parameters())
    state.muon.launch()
    gradients = [
        parameter.grad for group in state.adamw.param_groups for parameter in group["params"] if parameter.grad is not None
    ]
    ranks.average_(gradients)
    if clip and not state.train.clip_before_reduction:
        norms = torch.stack(torch._foreach_norm(gradients))
        norm = (norms.square().sum() + state.muon.squared_norm()).sqrt()
        factor = (clip / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, factor)
        state.muon.scale(factor)
