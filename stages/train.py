"""train: from random weights to a float checkpoint with averaged weights.

It starts one process per visible GPU, two on a CPU, or NPROC, unless torchrun has started it. The run is saved under
.ckpt/train every `train.checkpoint_seconds`, on Ctrl-C, on SIGTERM and when the launcher of its ranks dies; the next
`dvc repro` with the same params, data and code continues it. Its reports are rewritten while it trains, so that
`dvc plots show` and editors have the curve so far.
"""

import dataclasses
import json
import shutil
import time
from functools import partial
from pathlib import Path

from fairway.closure import import_closure
from fairway.errors import reading
from fairway.lm import checkpoint
from fairway.lm.config import Architecture, Model
from fairway.lm.model import GPT
from fairway.params import load
from fairway.text.shards import read_split
from fairway.text.tokenizer import read_tokenizer
from fairway.train import resume
from fairway.train.config import Qat, Train
from fairway.train.fit import Hooks, deterministic, fit, loss_functions, metrics, timing
from fairway.train.loader import WindowLoader
from fairway.train.precision import precision
from fairway.train.ranks import Ranks
from fairway.train.step import TrainState
from stages import common
from stages.launch import CPU_RANKS, shared

ROOT = Path(__file__).resolve().parents[1]  # of the code
DATA = common.ARTIFACTS / "tokenize"
SAVES = Path(".ckpt/train")
SPLIT = "train"


def main() -> None:
    model, config, qat = (load(common.PARAMS, *section) for section in (("model", Model), ("train", Train), ("qat", Qat)))
    cpu_ranks = 1 if config.sequences_per_step % CPU_RANKS else CPU_RANKS
    with shared("train", config.passes, cpu_ranks) as ranks:
        train(model, config, qat, ranks)


def train(model_params: Model, config: Train, qat: Qat, ranks: Ranks) -> None:
    if ranks.device.type == "cpu":
        deterministic(config.compile)
    tokenizer = read_tokenizer(DATA / "tokenizer.model")
    text = {"vocabulary_size": tokenizer.vocabulary_size, "bos": tokenizer.bos, "sequence_length": config.sequence_length}
    architecture = Architecture(**dataclasses.asdict(model_params), **text)
    tokens = read_split(DATA / SPLIT, tokenizer.vocabulary_size)
    loader = WindowLoader(tokens, config.sequence_length, config.sequences_per_step, config.seed, config.order)
    model = GPT(architecture)
    model.initialise(config.seed)
    state = TrainState.start(model.to(ranks.device), config, qat, precision(config, ranks.device))
    folder = SAVES / run_key(architecture, config, qat)
    if resume.load(folder, state, ranks):
        common.say(f"train: continues at step {state.step}")
    start = time.monotonic()
    losses = loss_functions(state, loader, ranks)
    report = partial(write_reports, state, loader, ranks, compile_seconds=time.monotonic() - start)
    progress = common.Progress(config.steps * config.tokens_per_step, "tokens", "train")
    progress.advance(state.tokens)
    with common.deferring_interrupts() as caught:
        hooks = Hooks(progress.advance, report, partial(resume.save, folder, state, ranks), lambda: bool(caught))
        finished = fit(state, loader, losses, hooks, ranks)
    if not finished:
        common.say(f"train: saved at step {state.step}; `dvc repro` continues from here")
        raise KeyboardInterrupt
    progress.close(f"loss {state.history[-1]['loss']:.3f}")
    if state.stopped_by_clock:
        common.say(
            f"train: train.wall_clock_seconds {config.wall_clock_seconds:g} ended it after {state.step:,} of {config.steps:,} "
            "steps; the weights depend on the speed of the machine: raise it, or lower train.steps, for a run that repeats"
        )
    if ranks.rank == 0:
        with common.replacing(common.ARTIFACTS / "train/checkpoint.safetensors") as path:
            checkpoint.save(path, architecture, state.exported())
        common.write_ledger("train", SPLIT, len(tokens))
        report()
        shutil.rmtree(SAVES, ignore_errors=True)


def write_reports(state: TrainState, loader: WindowLoader, ranks: Ranks, compile_seconds: float) -> None:
    """The loss curve, the metrics and the times so far."""
    common.write_tsv(common.REPORTS / "train/loss.tsv", state.history)
    common.write_json(common.REPORTS / "train/metrics.json", metrics(state, loader, ranks))
    common.write_json(common.REPORTS / "train/timing.json", timing(state, compile_seconds))


def run_key(architecture: Architecture, config: Train, qat: Qat) -> str:
    """What determines a run: params, the hashes of its data that `tokenize` has written, and the code that it imports."""
    params = json.dumps([dataclasses.asdict(part) for part in (architecture, config, qat)], sort_keys=True)
    manifest = common.read_json(DATA / "manifest.json", ["splits", "tokenizer"])
    with reading(DATA / "manifest.json", "a manifest of `tokenize`", LookupError, TypeError):
        data = json.dumps([manifest["splits"][SPLIT]["sha256"], manifest["tokenizer"]["sha256"]])
    code = [(ROOT / path).read_bytes() for path in import_closure("stages/train.py", ROOT)]
    return resume.key([params.encode(), data.encode(), *code])


if __name__ == "__main__":
    common.run(main)
