"""Our training against a plain, well-tuned PyTorch transformer of equal width, depth and parameters, in one process.

Same data in the same order, same batch, steps, precision and compiler. The two take turns, a few steps each on a clock
of its own, so that a neighbour on the machine disturbs both alike; compiling and scoring are off the clock. A method
that warms down shows what it has learned only at the end of its horizon: so a third run, ours again with a shorter
horizon, tells how soon we are as good as the peer ends. Scores are bits per byte of the holdout split.
Run after `dvc repro tokenize`: python -m bench.training; first `--tune` shows which learning rate suits the peer.
"""

import argparse
import dataclasses
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from bench.plain import (
    GRADIENT_CLIP,
    PlainTransformer,
    equal_feed_forward_width,
    learning_rate,
    plain_optimizer,
)
from fairway.errors import InputError
from fairway.lm.config import Architecture, Model
from fairway.lm.model import GPT
from fairway.optim.average import WeightAverage
from fairway.params import load, parse, read_yaml
from fairway.score.bits import bits_per_byte
from fairway.text.byte_count import table_bytes
from fairway.text.shards import read_split
from fairway.text.tokenizer import Tokenizer
from fairway.train import step
from fairway.train.config import Qat, Train
from fairway.train.fit import loss_functions
from fairway.train.loader import WindowLoader
from fairway.train.objective import compiled, cross_entropy
from fairway.train.precision import precision
from fairway.train.ranks import Ranks
from fairway.train.step import TrainState, train_step
from stages.common import ARTIFACTS, PARAMS, run

TOKENS = ARTIFACTS / "tokenize"
HOLDOUT_TOKENS = 65536
HOLDOUT_BATCH = 32  # windows scored at once
CHUNK = 20  # steps that one takes before it is another's turn
MEASUREMENTS = 14  # points on the curves
BREAKDOWN_STEPS = 40
TUNE_STEPS, TUNE_RATES = 300, (5e-4, 1e-3, 2e-3, 4e-3)


class Setting(NamedTuple):
    """What all runs have in common."""

    architecture: Architecture
    train: Train
    qat: Qat
    dtype: torch.dtype
    device: torch.device
    tokens: np.ndarray  # of the train split
    windows: Tensor  # int64 (N, T + 1), of the holdout split; each begins with the last target of the one before
    text_bytes: int  # that the targets of these windows spell

    @classmethod
    def read(cls, steps: int | None) -> "Setting":
        """From params.yaml and the tokenised corpus, with `steps` instead of train.steps."""
        if not (TOKENS / "tokenizer.model").exists():
            raise InputError(f"{TOKENS}: no tokenised corpus; run `dvc repro tokenize` first")
        params = read_yaml(PARAMS)
        train = parse(params["train"] | ({"steps": steps} if steps is not None else {}), "train", Train)
        tokenizer = Tokenizer.from_bytes((TOKENS / "tokenizer.model").read_bytes())
        architecture = Architecture(
            **dataclasses.asdict(parse(params["model"], "model", Model)),
            vocabulary_size=tokenizer.vocabulary_size,
            bos=tokenizer.bos,
            sequence_length=train.sequence_length,
        )
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        holdout = read_split(TOKENS / "holdout", tokenizer.vocabulary_size)
        length = train.sequence_length
        count = min(HOLDOUT_TOKENS, len(holdout) - 1) // length
        windows = np.stack([holdout[i * length : (i + 1) * length + 1] for i in range(count)]).astype(np.int64)
        return cls(
            architecture,
            train,
            load(PARAMS, "qat", Qat),
            precision(train, device),
            device,
            read_split(TOKENS / "train", tokenizer.vocabulary_size),
            torch.from_numpy(windows).to(device),
            int(table_bytes(tokenizer).lossless_bytes[windows[:, 1:]].sum()),
        )


class Runner:
    """A training run with a clock of its own."""

    def __init__(self, setting: Setting, model: nn.Module, steps: int):
        self.setting, self.model, self.steps = setting, model, steps
        config = setting.train
        self.loader = WindowLoader(setting.tokens, config.sequence_length, config.sequences_per_step, config.seed, config.order)
        self.done, self.seconds = 0, 0.0
        self.step_seconds: list[float] = []  # means of each turn
        self.curve: list[tuple[float, float]] = []  # (seconds, bits per byte)

    def take_turn(self) -> None:
        """The next steps on the clock; nothing at the end of the run."""
        count = min(CHUNK, self.steps - self.done)
        if not count:
            return
        start = clock(self.setting.device)
        for _ in range(count):
            self.step()
        seconds = clock(self.setting.device) - start
        self.seconds += seconds
        self.step_seconds.append(seconds / count)
        self.rest()

    def step(self) -> None:
        self.update(self.loader.batch(self.done).to(self.setting.device, non_blocking=True))
        self.done += 1

    def update(self, windows: Tensor) -> None:
        """One step of the optimizer on windows (B, T + 1)."""
        raise NotImplementedError

    def rest(self) -> None:
        """What happens between turns, off the clock."""

    def weights(self) -> list[dict[str, Tensor]]:
        """The weights to be scored; the best of them count."""
        raise NotImplementedError

    def measure(self) -> float:
        """Bits per byte on the holdout windows, in float32; a point on the curve."""
        self.curve.append((self.seconds, min(holdout_bpb(self.model, state, self.setting) for state in self.weights())))
        return self.curve[-1][1]

    @property
    def tokens_per_second(self) -> float:
        return self.setting.train.tokens_per_step / float(np.median(self.step_seconds))


class Ours(Runner):
    """The loop of the stage `train`."""

    def __init__(self, setting: Setting, steps: int):
        model = GPT(setting.architecture)
        model.initialise(setting.train.seed)
        super().__init__(setting, model.to(setting.device), steps)
        config = dataclasses.replace(setting.train, steps=steps, wall_clock_seconds=math.inf)
        self.state, self.ranks = TrainState.start(self.model, config, setting.qat, setting.dtype), Ranks(device=setting.device)
        self.losses = loss_functions(self.state, self.loader, self.ranks)

    def update(self, windows: Tensor) -> None:
        train_step(self.state, windows, self.losses.__getitem__, self.ranks)

    def weights(self) -> list[dict[str, Tensor]]:
        return [self.state.exported()]


class Peer(Runner):
    """The plain transformer. Averaging its weights costs it nothing here, and is used where it helps."""

    def __init__(self, setting: Setting, steps: int, lr: float, feed_forward_width: int):
        a, config = setting.architecture, setting.train
        model = PlainTransformer(a.vocabulary_size, a.width, a.layers, a.heads, a.sequence_length, feed_forward_width)
        model.initialise(config.seed)
        super().__init__(setting, model.to(setting.device), steps)
        self.lr, self.optimizer = lr, plain_optimizer(self.model, lr)
        self.passes = config.passes(1)
        self.average = WeightAverage(self.model, config.ema_decay**CHUNK)
        example = self.loader.batch(0).to(setting.device).chunk(self.passes)[0]
        self.loss = compiled(self._loss, example) if config.compile else self._loss

    def _loss(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        dtype = self.setting.dtype
        with torch.autocast(windows.device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits_BTV = self.model(windows[:, :-1])
        loss = cross_entropy(logits_BTV.float(), windows[:, 1:])
        return loss, loss.detach()

    def update(self, windows: Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.done, self.steps, self.lr)
        self.optimizer.zero_grad(set_to_none=True)
        for part in windows.chunk(self.passes):
            (self.loss(part)[0] / self.passes).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_CLIP)
        self.optimizer.step()

    def rest(self) -> None:
        self.average.update(self.model)

    def weights(self) -> list[dict[str, Tensor]]:
        return [{name: parameter.detach() for name, parameter in self.model.named_parameters()}, self.average.shadow]


def clock(device: torch.device) -> float:
    """Seconds, when the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()


@torch.no_grad()
def holdout_bpb(model: nn.Module, state: dict[str, Tensor], setting: Setting) -> float:
    model.eval()
    nats = 0.0
    for windows in setting.windows.split(HOLDOUT_BATCH):
        logits_BTV = functional_call(model, state, (windows[:, :-1],))
        nats += F.cross_entropy(logits_BTV.flatten(0, 1), windows[:, 1:].flatten(), reduction="none").double().sum().item()
    model.train()
    return bits_per_byte(np.array(nats), setting.text_bytes)


def race(ours: Ours, peer: Peer, short: Ours) -> None:
    """All three to their ends, in turns; a row of the table at every measurement."""
    every = CHUNK * max(1, math.ceil(peer.steps / CHUNK) // MEASUREMENTS)
    print("\n| steps | ours, s | plain, s | ours, bpb | plain, bpb |\n|---:|---:|---:|---:|---:|", flush=True)
    while peer.done < peer.steps:
        for runner in (ours, peer, short):
            runner.take_turn()
        if peer.done % every == 0 or peer.done == peer.steps:
            bpb, peer_bpb = ours.measure(), peer.measure()
            print(f"| {peer.done:,} | {ours.seconds:.1f} | {peer.seconds:.1f} | {bpb:.4f} | {peer_bpb:.4f} |", flush=True)
    short.measure()


def time_to(target: float, curve: Iterable[tuple[float, float]]) -> float:
    """Seconds after which a curve first comes down to `target`, linear between measurements; infinite if it never does."""
    for (earlier, above), (later, below) in itertools.pairwise([(0.0, math.inf), *curve]):
        if below <= target:
            return later - (later - earlier) * (target - below) / (above - below)
    return math.inf


def breakdown(ours: Ours) -> pd.Series:
    """Median milliseconds of the parts of our step, over more steps after the race; the loop is watched, not copied."""
    rows: list[Counter] = []

    def watched(name: str, function: Callable) -> Callable:
        def call(*arguments):
            start = clock(ours.setting.device)
            result = function(*arguments)
            rows[-1][name] += clock(ours.setting.device) - start
            return result

        return call

    muon, adamw, average = ours.state.muon, ours.state.adamw, ours.state.average
    parts = [(ours, "step", "step"), (ours.loader, "batch", "loader"), (step, "backward", "forward and backward")]
    parts += [(muon, "launch", "Muon"), (muon, "step", "Muon"), (adamw, "step", "AdamW")]
    parts += [(average, "update", "average")] if average is not None else []
    with ExitStack() as patches:
        for owner, function, name in parts:
            patches.enter_context(patch.object(owner, function, watched(name, getattr(owner, function))))
        for _ in range(BREAKDOWN_STEPS):
            rows.append(Counter())
            ours.step()
    seconds = pd.DataFrame(rows)
    whole = seconds.pop("step")
    seconds["clipping, schedules"] = whole - seconds.sum(axis=1)
    return 1000 * seconds.median()


def report(ours: Ours, peer: Peer, short: Ours) -> None:
    """What the race showed; the figures last."""
    target = peer.curve[-1][1]
    speed = ours.tokens_per_second / peer.tokens_per_second
    full_ratio = time_to(target, ours.curve) / peer.seconds
    short_seconds, short_bpb = short.curve[-1]
    reached = short_bpb <= target
    short_ratio = short_seconds / peer.seconds if reached else math.inf
    print(f"\ntokens/s: ours {ours.tokens_per_second:,.0f}, plain {peer.tokens_per_second:,.0f}, ratio {speed:.3f}")
    print(f"ours of {ours.steps:,} steps is at the plain one's final {target:.4f} bpb after {full_ratio:.3f} of its time")
    print(
        f"ours of {short.steps:,} steps ends at {short_bpb:.4f} bpb after {short_seconds / peer.seconds:.3f} of its time: "
        f"{'as good' if reached else 'not as good'} as the plain one's end"
    )
    milliseconds = breakdown(ours)
    step = milliseconds.sum()
    print(f"\n| part of our step | ms of {step:.1f} | share |\n|---|---:|---:|")
    for name, value in milliseconds.items():
        print(f"| {name} | {value:.2f} | {value / step:.1%} |")
    share = 1 - milliseconds["forward and backward"] / step
    print(f"\nfigure tokens_per_second_ratio = {speed:.4f}")
    print(f"figure time_to_peer_bpb_ratio = {min(full_ratio, short_ratio):.4f}")
    print(f"figure loader_and_optimizer_share = {share:.4f}")


def tune(setting: Setting, feed_forward_width: int) -> None:
    """The peer on a short horizon at several learning rates."""
    print(f"{setting.train.steps} steps\n\n| lr of the plain transformer | bpb |\n|---:|---:|")
    for lr in TUNE_RATES:
        peer = Peer(setting, setting.train.steps, lr, feed_forward_width)
        while peer.done < peer.steps:
            peer.take_turn()
        print(f"| {lr:g} | {peer.measure():.4f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Our training against a plain PyTorch transformer of equal size.")
    parser.add_argument("--steps", type=int, help=f"instead of train.steps; with --tune {TUNE_STEPS}")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate of the plain one, the best of --tune")
    parser.add_argument("--horizon", type=float, default=0.55, help="steps of our short run, as a part of the plain one's")
    parser.add_argument("--tune", action="store_true", help="only train the plain transformer, at several learning rates")
    arguments = parser.parse_args()
    setting = Setting.read(arguments.steps if arguments.steps is not None or not arguments.tune else TUNE_STEPS)
    a, steps = setting.architecture, setting.train.steps
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in GPT(a).parameters())
    feed_forward_width = equal_feed_forward_width(parameters, a.vocabulary_size, a.width, a.layers, a.sequence_length)
    if arguments.tune:
        tune(setting, feed_forward_width)
        return
    ours, peer = Ours(setting, steps), Peer(setting, steps, arguments.lr, feed_forward_width)
    short = Ours(setting, round(arguments.horizon * steps))
    peer_parameters = sum(parameter.numel() for parameter in peer.model.parameters())
    print(
        f"{a.layers} layers of width {a.width}; parameters: ours {parameters:,}, plain {peer_parameters:,} "
        f"(feed-forward width {feed_forward_width}, {peer_parameters / parameters - 1:+.2%}); {steps:,} steps of "
        f"{setting.train.tokens_per_step:,} tokens, {setting.dtype}, {setting.device.type}, {torch.get_num_threads()} threads"
    )
    race(ours, peer, short)
    report(ours, peer, short)


if __name__ == "__main__":
    run(main)
