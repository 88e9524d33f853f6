"""train: from random weights to a float checkpoint with averaged weights.

Long work survives: every `train.checkpoint_seconds`, on Ctrl-C and on SIGTERM the run is saved under .ckpt/train, keyed
by its params, data and code, and the next `dvc repro` goes on from there. The folder goes when the stage has succeeded.
"""

import dataclasses
import json
import shutil
import time
from pathlib import Path

import torch

from fairway.lm import checkpoint
from fairway.lm.config import Architecture, Model
from fairway.lm.model import GPT
from fairway.params import load
from fairway.text.shards import read_split
from fairway.text.tokenizer import Tokenizer
from fairway.train import resume
from fairway.train.config import Train
from fairway.train.loader import WindowLoader
from fairway.train.loop import Run, compiled, cross_entropy, precision, train_step
from stages.shell import (
    ARTIFACTS,
    PARAMS,
    REPORTS,
    Progress,
    deferring_interrupts,
    replacing,
    run,
    write_json,
    write_ledger,
    write_tsv,
)

SPLIT = "train"
SAVED = Path(".ckpt/train")
CURVE_POINTS = 200


def main() -> None:
    config = load(PARAMS, "train", Train)
    model_params = load(PARAMS, "model", Model)
    tokenizer = Tokenizer.from_bytes((ARTIFACTS / "tokenize/tokenizer.model").read_bytes())
    architecture = Architecture(
        **dataclasses.asdict(model_params),
        vocabulary_size=tokenizer.vocabulary_size,
        bos=tokenizer.bos,
        sequence_length=config.sequence_length,
    )
    tokens = read_split(ARTIFACTS / "tokenize" / SPLIT, tokenizer.vocabulary_size)
    loader = WindowLoader(tokens, config.sequence_length, config.tokens_per_step // config.sequence_length, config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = GPT(architecture).to(device)
    model.initialise(config.seed)
    dtype = precision(config, device)
    saved = SAVED / f"{run_key(architecture, config)}.pt"
    train_run = Run.start(model, config, dtype)
    if resume.load(saved, train_run):
        print(f"train: continues at step {train_run.step}", flush=True)
    start = time.monotonic()
    loss_function = compiled(lambda windows: cross_entropy(model, windows, dtype), config, loader.batch(0).to(device))
    compile_seconds = time.monotonic() - start
    train(train_run, loader, config, loss_function, saved)

    with replacing(ARTIFACTS / "train/checkpoint.safetensors") as path:
        checkpoint.save(path, architecture, train_run.average.shadow)
    write_ledger("train", SPLIT, len(tokens))
    write_tsv(REPORTS / "train/loss.tsv", train_run.history)
    write_json(
        REPORTS / "train/metrics.json",
        {
            "train_loss": round(train_run.history[-1]["loss"], 5),
            "train_tokens": train_run.step * config.tokens_per_step,
            "train_steps": train_run.step,
            "epochs": round(train_run.step * loader.sequences / loader.windows, 3),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "world_size": 1,
            "precision": str(dtype).removeprefix("torch."),
            "device": device.type,
        },
    )
    seconds = train_run.seconds
    rate = train_run.step * config.tokens_per_step / seconds
    timing = {"seconds": round(seconds, 1), "compile_seconds": round(compile_seconds, 1), "tokens_per_second": round(rate)}
    write_json(REPORTS / "train/timing.json", timing)
    shutil.rmtree(SAVED, ignore_errors=True)


def train(train_run: Run, loader: WindowLoader, config: Train, loss_function, saved: Path) -> None:
    """Step until `train.steps` or the wall clock says stop; save now and then, and when interrupted."""
    device = next(train_run.model.parameters()).device
    progress = Progress(config.steps * config.tokens_per_step, "tokens", "train")
    progress.advance(train_run.step * config.tokens_per_step)
    every = max(1, config.steps // CURVE_POINTS)
    last_save = time.monotonic()
    with deferring_interrupts() as interrupted:
        while train_run.done(config) < 1:
            start = time.monotonic()
            loss = train_step(train_run, loader.batch(train_run.step).to(device), config, loss_function)
            train_run.seconds += time.monotonic() - start
            train_run.recent.append(loss)
            if train_run.step % every == 0 or train_run.done(config) == 1:
                mean = sum(train_run.recent) / len(train_run.recent)
                train_run.history.append({"step": train_run.step, "loss": round(mean, 5)})
                train_run.recent = []
            progress.advance(config.tokens_per_step, f"loss {loss:.3f}")
            if interrupted or time.monotonic() - last_save > config.checkpoint_seconds:
                resume.save(saved, train_run)
                last_save = time.monotonic()
            if interrupted:
                print(f"train: saved at step {train_run.step}; `dvc repro` continues from here", flush=True)
                raise KeyboardInterrupt
    progress.close(f"loss {train_run.history[-1]['loss']:.3f}" if train_run.history else "")


def run_key(architecture: Architecture, config: Train) -> str:
    """What determines a run: its params, its data and the code of the rooms that train."""
    params = json.dumps([dataclasses.asdict(architecture), dataclasses.asdict(config)], sort_keys=True)
    code = [path for room in ("lm", "optim", "train") for path in sorted(Path("fairway", room).glob("*.py"))]
    shards = sorted((ARTIFACTS / "tokenize" / SPLIT).glob("*.bin"))
    return resume.key([params.encode(), *(path.read_bytes() for path in code), *(path.read_bytes() for path in shards)])


if __name__ == "__main__":
    run(main)
