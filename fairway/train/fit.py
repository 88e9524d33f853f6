"""The training loop. What happens around its steps (progress, reports, saves, interrupts) the caller hands in as hooks."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from fairway.train.loader import WindowLoader
from fairway.train.objective import Loss, Phase, compiled
from fairway.train.ranks import Ranks
from fairway.train.step import TrainState, train_step

CURVE_POINTS = 200
REPORT_SECONDS = 5.0  # between reports while training: each takes less than a millisecond


@dataclass(frozen=True)
class Hooks:
    """What `fit` calls between two steps. By default nothing is shown or written, and nothing interrupts."""

    progress: Callable[[int, str], None] = lambda tokens, note: None  # every step: its tokens, its loss in words
    report: Callable[[], None] = lambda: None  # on rank 0, where the curve has a new point, every REPORT_SECONDS at most
    save: Callable[[], None] = lambda: None  # on all ranks, every `train.checkpoint_seconds` and when interrupted
    interrupted: Callable[[], bool] = lambda: False  # whether this rank is asked to stop


def deterministic(compiles: bool) -> None:
    """Make torch give the same bytes for the same params on a CPU (DESIGN 3.11).

    Where nothing is compiled, the compiler is not told: torch would import it for that, which takes two seconds.
    By default a compiled embedding adds its gradient up atomically, in the order in which threads arrive. The deterministic
    way takes no longer, but torch then also fills memory that nothing reads, which does: that part stays off.
    """
    if compiles:
        torch.use_deterministic_algorithms(True)
    else:
        torch.set_deterministic_debug_mode("error")
    torch.utils.deterministic.fill_uninitialized_memory = False


def loss_functions(state: TrainState, loader: WindowLoader, ranks: Ranks) -> dict[Phase, Loss]:
    """The loss function of every phase to come, compiled where `train.compile` says so, so that no step has to compile."""
    losses = {phase: state.objective.loss(phase, state.dtype, state.teacher) for phase in state.phases()}
    if state.train.compile:
        windows = loader.batch(0, ranks.rank, ranks.size).to(ranks.device)
        example = windows.chunk(state.train.passes(ranks.size))[0]
        losses = {phase: compiled(loss, example) for phase, loss in losses.items()}
    return losses


def fit(state: TrainState, loader: WindowLoader, losses: Mapping[Phase, Loss], hooks: Hooks, ranks: Ranks) -> bool:
    """Step until `train.steps` or `train.wall_clock_seconds` end training: True.

    False where any rank was interrupted; all ranks have then saved the same step. Raises InputError if a loss is not finite.
    """
    config = state.train
    steps_per_point = max(1, config.steps // CURVE_POINTS)
    last_save = last_report = time.monotonic()
    while state.done < 1:
        start = time.monotonic()
        windows = loader.batch(state.step, ranks.rank, ranks.size).to(ranks.device, non_blocking=True)
        loss = train_step(state, windows, losses.__getitem__, ranks)
        due = time.monotonic() - last_save > config.checkpoint_seconds
        everyone = ranks.gather(time.monotonic() - start, due, hooks.interrupted())
        seconds, due, stop = (max(column) for column in zip(*everyone, strict=True))  # all ranks decide alike
        state.seconds += seconds
        new_point = state.record(loss, steps_per_point)
        if new_point and ranks.rank == 0 and time.monotonic() - last_report > REPORT_SECONDS:
            hooks.report()
            last_report = time.monotonic()
        hooks.progress(config.tokens_per_step, f"loss {loss:.3f}")
        if stop or due:
            hooks.save()
            last_save = time.monotonic()
        if stop:
            return False
    return True


def metrics(state: TrainState, loader: WindowLoader, ranks: Ranks) -> dict:
    """What is known of a run so far that has at least one point on its curve."""
    return {
        "train_loss": round(state.history[-1]["loss"], 5),
        "train_tokens": state.tokens,
        "train_steps": state.step,
        "stopped_by_clock": state.stopped_by_clock,
        "epochs": round(state.step * loader.sequences / loader.windows, 3),
        "parameters": sum(parameter.numel() for parameter in state.objective.model.parameters()),
        "world_size": ranks.size,
        "precision": str(state.dtype).removeprefix("torch."),
        "device": ranks.device.type,
    }


def timing(state: TrainState, compile_seconds: float) -> dict:
    """Seconds spent in training steps and in compiling, and the rate of the former."""
    seconds = {"seconds": state.seconds, "compile_seconds": compile_seconds, "tokens_per_second": state.tokens / state.seconds}
    return {name: round(value, 1) for name, value in seconds.items()}
