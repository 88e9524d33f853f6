"""One training step, and all the state that a run of them has.

Everything a run is made of lives in `Run`, whose state_dict is what survives a crash: weights, both optimizers, the
weight average, the teacher, the step and the clock. Schedules depend on the fraction of training done, which is the
larger of steps over `train.steps` and seconds over `train.wall_clock_seconds`: a machine that is too slow still warms
down. With several ranks each owns a part of every step's sequences and of Muon's matrices.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fairway.errors import InputError
from fairway.lm.model import GPT
from fairway.optim.average import SnapshotAverage, WeightAverage
from fairway.optim.grokfast import Grokfast
from fairway.optim.muon import Muon
from fairway.optim.schedule import momentum, warmdown, weight_decay_factor
from fairway.train.config import Qat, Train
from fairway.train.groups import optimizers
from fairway.train.objective import Loss, Objective, Phase
from fairway.train.qat import on_grid, prune_, prune_target
from fairway.train.ranks import ALONE, Ranks


@dataclass
class Run:
    """A training run at some step."""

    objective: Objective
    muon: Muon
    adamw: torch.optim.AdamW
    average: WeightAverage | SnapshotAverage | None
    grokfast: Grokfast | None
    teacher: GPT | None
    train: Train
    qat: Qat
    step: int = 0
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)  # of the loss curve
    recent: list[float] = field(default_factory=list)  # losses since its last point
    distilled_steps: int = 0

    @classmethod
    def start(cls, model: GPT, train: Train, qat: Qat, dtype: torch.dtype) -> "Run":
        device = next(model.parameters()).device
        objective = Objective(model, train, qat).to(device)
        average = teacher = None
        if train.average != "none":
            average = WeightAverage(model, train.ema_decay) if train.average == "ema" else SnapshotAverage(model)
        if train.distill_weight:
            teacher = GPT(model.architecture).to(device).requires_grad_(False)
            teacher.load_state_dict(model.state_dict())
        grokfast = Grokfast(train.grokfast_weight, train.grokfast_decay) if train.grokfast_weight else None
        return cls(objective, *optimizers(objective, train, dtype), average, grokfast, teacher, train, qat)

    @property
    def done(self) -> float:
        """The fraction of training that is behind, 0 to 1."""
        return min(1.0, max(self.step / self.train.steps, self.seconds / self.train.wall_clock_seconds))

    @property
    def multiplier(self) -> float:
        """The learning-rate multiplier of the next step."""
        return self.multiplier_at(self.done)

    def multiplier_at(self, done: float) -> float:
        return warmdown(done, self.train.warmdown_fraction, self.train.warmdown_shape, self.train.min_lr_fraction)

    def phase_at(self, done: float) -> Phase:
        distilled = self.teacher is not None and below(self.multiplier_at(done), self.train.distill_start)
        return Phase(done >= self.train.recurrence_start, distilled)

    def phases(self) -> list[Phase]:
        """Every phase from here to the end, in order: what has to be compiled.

        Late starters stay on, so these are all that can be met, also where the clock is ahead of the steps: the present
        one, those around the start of the recurrence, and the last one.
        """
        start = self.train.recurrence_start
        ahead = [done for done in (math.nextafter(start, 0), start, math.nextafter(1, 0)) if done > self.done]
        return list(dict.fromkeys(self.phase_at(done) for done in (self.done, *ahead)))

    def exported(self) -> dict[str, Tensor]:
        """The weights that leave training: the average of the params' choice, pruned as far as they ask."""
        model = self.objective.model
        state = {name: parameter.detach() for name, parameter in model.named_parameters()}
        if isinstance(self.average, WeightAverage):
            state = {name: tensor.clone() for name, tensor in self.average.shadow.items()}
        elif self.average is not None:  # the last step is a snapshot too, wherever the clock has put it
            fraction = 1 / (self.average.snapshots + 1)
            state = {name: torch.lerp(tensor, state[name].float(), fraction) for name, tensor in self.average.shadow.items()}
        if self.qat.prune_fraction:
            prune_([state[name.removeprefix("model.")] for name in self.objective.roles], self.qat.prune_fraction)
        return state

    def parts(self) -> dict[str, nn.Module | Muon | torch.optim.AdamW | WeightAverage | SnapshotAverage | Grokfast]:
        """All that has a state_dict of its own."""
        found = {
            "objective": self.objective,
            "muon": self.muon,
            "adamw": self.adamw,
            "average": self.average,
            "grokfast": self.grokfast,
            "teacher": self.teacher,
        }
        return {name: part for name, part in found.items() if part is not None}

    def state_dict(self) -> dict:
        counters = {name: getattr(self, name) for name in ("step", "seconds", "history", "recent", "distilled_steps")}
        return {name: part.state_dict() for name, part in self.parts().items()} | {"counters": counters}

    def load_state_dict(self, state: dict) -> None:
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        for name, value in state["counters"].items():
            setattr(self, name, value)


def below(multiplier: float, start: float) -> bool:
    """Whether a late starter with this `start` is on; a start of 0 is never."""
    return start > 0 and multiplier <= start


def train_step(run: Run, windows: Tensor, loss_of: Callable[[Phase], Loss], ranks: Ranks = ALONE) -> float:
    """One optimizer step on this rank's windows (B, T + 1), in as many passes as `train.tokens_per_pass` makes of them.

    Returns the cross-entropy in nats a token over all ranks; raises InputError if the loss of any is not finite.
    """
    schedule(run)
    if snapshot_due(run):
        run.average.update(run.objective.model)
    refresh_teacher(run)
    run.objective.zero_grad(set_to_none=True)
    entropy = backward(run, windows, loss_of(run.phase_at(run.done)), ranks)
    reduce_gradients(run, ranks)
    run.adamw.step()
    run.muon.step()
    run.step += 1
    if run.qat.prune_fraction and run.step % run.qat.prune_every == 0:
        prune_(run.objective.grid_parameters().values(), prune_target(run.done, run.qat))
    if run.train.average == "ema":
        run.average.update(run.objective.model)
    return entropy


def snapshot_due(run: Run) -> bool:
    """SWA: every `swa_every` steps late in the warm-down (#549 collects these and never uses them)."""
    due = run.step > 0 and run.step % run.train.swa_every == 0
    return run.train.average == "swa" and due and run.multiplier <= run.train.swa_start


def schedule(run: Run) -> None:
    """Learning rates, momentum and weight decay of the step to come."""
    decay = weight_decay_factor(run.done, run.train.weight_decay_final, run.train.weight_decay_taper)
    for group in run.muon.param_groups + run.adamw.param_groups:
        group["lr"] = group["base_lr"] * run.multiplier
        group["weight_decay"] = group["base_weight_decay"] * decay
    for group in run.muon.param_groups:
        group["momentum"] = momentum(run.step, run.train.momentum_start, run.train.momentum, run.train.momentum_warmup_steps)


@torch.no_grad()
def refresh_teacher(run: Run) -> None:
    """The averaged weights into the teacher, when distillation begins and every `train.distill_every` steps of it."""
    if run.phase_at(run.done).distilled:
        if run.distilled_steps % run.train.distill_every == 0:
            run.teacher.load_state_dict(run.average.shadow)
        run.distilled_steps += 1


def backward(run: Run, windows: Tensor, loss: Loss, ranks: Ranks) -> float:
    """Gradients of this rank's mean loss; the mean cross-entropy of all ranks. Raises InputError if one is not finite."""
    passes = run.train.passes(ranks.size)
    total = entropy = 0.0
    rounding = run.objective.roles and below(run.multiplier, run.qat.start)
    with on_grid(run.objective.grid_parameters(), run.objective.roles, run.qat) if rounding else nullcontext():
        for part in windows.chunk(passes):
            part_loss, part_entropy = loss(part)
            (part_loss / passes).backward()
            total, entropy = total + part_loss.detach() / passes, entropy + part_entropy / passes
    penalised = run.objective.roles and (run.qat.entropy_weight or run.qat.crown_weight)
    if penalised and below(run.multiplier, run.qat.penalty_start):
        penalty = run.objective.penalty()
        penalty.backward()
        total = total + penalty.detach()
    everyone = ranks.gather(*torch.stack((total, entropy)).tolist())
    sums = [sum(column) / ranks.size for column in zip(*everyone, strict=True)]
    if not torch.isfinite(torch.tensor(sums)).all():
        raise InputError(
            f"the training loss is {sums[0]} at step {run.step}; the last good checkpoint is kept: "
            "lower train.muon_lr, train.embedding_lr or train.scalar_lr"
        )
    return sums[1]


def reduce_gradients(run: Run, ranks: Ranks) -> None:
    """Clip, amplify slow gradients, and bring together what the ranks found: each Muon matrix where it is orthogonalised.

    Clipping each rank's own gradients before the reduction is what the published code does; Grokfast acts after that.
    """
    clip = run.train.gradient_clip
    if clip and run.train.clip_before_reduction:
        nn.utils.clip_grad_norm_(run.objective.parameters(), clip)
    if run.grokfast is not None:
        run.grokfast.apply(run.objective.parameters())
    run.muon.launch()
    small = [parameter.grad for group in run.adamw.param_groups for parameter in group["params"] if parameter.grad is not None]
    ranks.average_(small)
    if clip and not run.train.clip_before_reduction:
        norms = torch.stack(torch._foreach_norm(small))
        norm = (norms.square().sum() + run.muon.squared_norm()).sqrt()
        factor = (clip / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(small, factor)
        run.muon.scale(factor)
