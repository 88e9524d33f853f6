"""train: from random weights to a float checkpoint with averaged weights.

It starts one process a visible GPU by itself (or NPROC of them), and joins the others where torchrun has started it.
Long work survives: every `train.checkpoint_seconds`, on Ctrl-C and on SIGTERM the run is saved under .ckpt/train, keyed
by its params, data and code, and the next `dvc repro` goes on from there. The folder goes when the stage has succeeded.
Its reports grow while it trains, so that `dvc plots show` and editors have the curve up to now.
"""

import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from fairway.lm import checkpoint
from fairway.lm.config import Architecture, Model
from fairway.lm.model import GPT
from fairway.params import load
from fairway.text.shards import read_split
from fairway.text.tokenizer import Tokenizer
from fairway.train import resume
from fairway.train.config import Qat, Train
from fairway.train.loader import WindowLoader
from fairway.train.loop import Run, train_step
from fairway.train.objective import Loss, Phase, compiled
from fairway.train.precision import precision
from fairway.train.ranks import Ranks
from stages.common import (
    ARTIFACTS,
    PARAMS,
    REPORTS,
    Progress,
    deferring_interrupts,
    replacing,
    run,
    say,
    write_json,
    write_ledger,
    write_tsv,
)
from stages.launch import launch, visible_ranks

SPLIT = "train"
SAVED = Path(".ckpt/train")
CURVE_POINTS = 200
LIVE_SECONDS = 5.0  # between reports while it trains: each takes less than a millisecond


def main() -> None:
    if "WORLD_SIZE" not in os.environ and visible_ranks() > 1:
        load(PARAMS, "train", Train).passes(visible_ranks())  # refuses ranks that cannot share a step before they start
        sys.exit(launch("stages.train", visible_ranks()))
    ranks = Ranks.join()
    try:
        train(load(PARAMS, "model", Model), load(PARAMS, "train", Train), load(PARAMS, "qat", Qat), ranks)
    finally:
        ranks.leave()


def train(model_params: Model, config: Train, qat: Qat, ranks: Ranks) -> None:
    config.passes(ranks.size)  # of torchrun
    if ranks.device.type == "cpu":
        repeatable()
    tokenizer = Tokenizer.from_bytes((ARTIFACTS / "tokenize/tokenizer.model").read_bytes())
    data = {"vocabulary_size": tokenizer.vocabulary_size, "bos": tokenizer.bos, "sequence_length": config.sequence_length}
    architecture = Architecture(**dataclasses.asdict(model_params), **data)
    tokens = read_split(ARTIFACTS / "tokenize" / SPLIT, tokenizer.vocabulary_size)
    loader = WindowLoader(tokens, config.sequence_length, config.sequences_per_step, config.seed, config.order)
    model = GPT(architecture)
    model.initialise(config.seed)
    dtype = precision(config, ranks.device)
    train_run = Run.start(model.to(ranks.device), config, qat, dtype)
    saved = SAVED / run_key(architecture, config, qat)
    if resume.load(saved, train_run, ranks):
        say(f"train: continues at step {train_run.step}")
    start = time.monotonic()
    losses = loss_functions(train_run, dtype, loader.batch(0, ranks.rank, ranks.size).to(ranks.device), ranks)
    compile_seconds = time.monotonic() - start
    facts = {"world_size": ranks.size, "precision": str(dtype).removeprefix("torch."), "device": ranks.device.type}
    report = partial(write_reports, train_run, loader, facts, compile_seconds)
    step_until_done(train_run, loader, losses.__getitem__, ranks, saved, report)
    if ranks.rank == 0:
        with replacing(ARTIFACTS / "train/checkpoint.safetensors") as path:
            checkpoint.save(path, architecture, train_run.exported())
        write_ledger("train", SPLIT, len(loader.tokens))
        report()
        shutil.rmtree(SAVED, ignore_errors=True)


def repeatable() -> None:
    """On a CPU the same params give the same bytes (DESIGN 3.11).

    A compiled embedding's gradient is added up atomically otherwise, in the order in which the threads come by. The other
    way takes no longer; what does is filling memory that nothing reads, which is left off.
    """
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False


def loss_functions(train_run: Run, dtype: torch.dtype, windows: torch.Tensor, ranks: Ranks) -> dict[Phase, Loss]:
    """The loss function of every phase to come, compiled where `train.compile` says so, outside the clock."""
    losses = {phase: train_run.objective.loss(phase, dtype, train_run.teacher) for phase in train_run.phases()}
    if train_run.train.compile:
        example = windows.chunk(train_run.train.passes(ranks.size))[0]
        losses = {phase: compiled(loss, example) for phase, loss in losses.items()}
    return losses


def step_until_done(
    train_run: Run,
    loader: WindowLoader,
    loss_of: Callable[[Phase], Loss],
    ranks: Ranks,
    saved: Path,
    report: Callable[[], None],
) -> None:
    """Step until `train.steps` or the wall clock says stop; save and report now and then, and save when interrupted."""
    config = train_run.train
    progress = Progress(config.steps * config.tokens_per_step, "tokens", "train")
    progress.advance(train_run.step * config.tokens_per_step)
    every = max(1, config.steps // CURVE_POINTS)
    last_save = last_report = time.monotonic()
    with deferring_interrupts() as interrupted:
        while train_run.done < 1:
            start = time.monotonic()
            windows = loader.batch(train_run.step, ranks.rank, ranks.size).to(ranks.device, non_blocking=True)
            loss = train_step(train_run, windows, loss_of, ranks)
            due = time.monotonic() - last_save > config.checkpoint_seconds
            everyone = ranks.gather(time.monotonic() - start, due, bool(interrupted))
            seconds, due, stop = (max(column) for column in zip(*everyone, strict=True))  # all ranks decide alike
            train_run.seconds += seconds
            train_run.recent.append(loss)
            if train_run.step % every == 0 or train_run.done == 1:
                mean = sum(train_run.recent) / len(train_run.recent)
                train_run.history.append({"step": train_run.step, "loss": round(mean, 5)})
                train_run.recent = []
                if ranks.rank == 0 and time.monotonic() - last_report > LIVE_SECONDS:
                    report()
                    last_report = time.monotonic()
            progress.advance(config.tokens_per_step, f"loss {loss:.3f}")
            if stop or due:
                resume.save(saved, train_run, ranks)
                last_save = time.monotonic()
            if stop:
                say(f"train: saved at step {train_run.step}; `dvc repro` continues from here")
                raise KeyboardInterrupt
    progress.close(f"loss {train_run.history[-1]['loss']:.3f}" if train_run.history else "")


def write_reports(train_run: Run, loader: WindowLoader, facts: dict, compile_seconds: float) -> None:
    """The curve, the metrics and the clock so far; `facts` are metrics that stay."""
    tokens = train_run.step * train_run.train.tokens_per_step
    write_tsv(REPORTS / "train/loss.tsv", train_run.history)
    metrics = {
        "train_loss": round(train_run.history[-1]["loss"], 5),
        "train_tokens": tokens,
        "train_steps": train_run.step,
        "epochs": round(train_run.step * loader.sequences / loader.windows, 3),
        "parameters": sum(parameter.numel() for parameter in train_run.objective.model.parameters()),
    }
    write_json(REPORTS / "train/metrics.json", metrics | facts)
    seconds = train_run.seconds
    timing = {"seconds": seconds, "compile_seconds": compile_seconds, "tokens_per_second": tokens / seconds}
    write_json(REPORTS / "train/timing.json", {name: round(value, 1) for name, value in timing.items()})


def run_key(architecture: Architecture, config: Train, qat: Qat) -> str:
    """What determines a run: its params, its data and the code of the rooms that train."""
    params = json.dumps([dataclasses.asdict(part) for part in (architecture, config, qat)], sort_keys=True)
    code = [path for room in ("lm", "optim", "quant", "train") for path in sorted(Path("fairway", room).glob("*.py"))]
    shards = sorted((ARTIFACTS / "tokenize" / SPLIT).glob("*.bin"))
    return resume.key([params.encode(), *(path.read_bytes() for path in code), *(path.read_bytes() for path in shards)])


if __name__ == "__main__":
    run(main)
