"""What each technique is worth: one table at a small scale, each switched against the default at equal steps.

A run is a single-threaded process, as many at once as there are cores. Every variant trains with two seeds, and with a
third where the two disagree on whether it helps; seeds are paired with the default's, so that the table gives the
difference and its spread. Scores are bits per byte of the holdout split, never of val: once with the float weights,
once rounded to the grids of `quant`. Step time is processor time, which neighbours on the machine disturb least.
Finished runs are kept in bench/results/ablation.jsonl: an interrupted table goes on where it was.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bench.quantisers import dequantised
from fairway.lm.config import Architecture, Model
from fairway.lm.model import GPT
from fairway.params import parse, read_yaml
from fairway.quant.config import Quant
from fairway.quant.quantiser import fp16_tensors, prepare, quantise
from fairway.score.bits import bits_per_byte
from fairway.score.windows import score_windows
from fairway.text.byte_count import table_bytes
from fairway.text.shards import read_split
from fairway.text.tokenizer import Tokenizer
from fairway.train.config import Qat, Train
from fairway.train.loader import WindowLoader
from fairway.train.precision import precision
from fairway.train.step import TrainState, train_step
from stages.common import keep_freed_memory

ROOT = Path(__file__).resolve().parents[1]
TOKENS = ROOT / "artifacts/tokenize"
RESULTS = ROOT / "bench/results"
HOLDOUT_TOKENS = 32768
SEEDS = (1, 2, 3)

# The default of the table: #549's network at a small scale, with grids that are coarse enough to matter. Pinned here, so
# that what the table chooses for params.yaml does not move the table; what is not named is as in params.yaml.
# Plain grids, which training can foresee.
QUANT = {
    "method": "rtn",
    "bits": 6,
    "clip": 15.0,
    "embedding_extra_bits": 2,
    "embedding_clip": 9.0,
    "allocation": "uniform",
    "trellis": 0,
    "rotation": "none",
    "scale_mantissa_bits": 10,
}
DEFAULT = {
    "model": {
        "layers": 6,
        "width": 128,
        "heads": 4,
        "kv_heads": 2,
        "mlp_multiple": 3.0,
        "leaky_slope": 0.5,
        "rope_dims": 16,
        "xsa_layers": 2,
        "gated_attention": False,
        "value_residual": False,
        "value_embedding_layers": [],
        "value_embedding_width": 32,
        "unet_skips": "plain",
        "bigram_buckets": 1024,
        "bigram_width": 32,
        "tied_embeddings": True,
    },
    "train": {"steps": 180, "tokens_per_step": 2048, "sequence_length": 128, "momentum_warmup_steps": 60, "compile": False},
    "quant": QUANT,
    "qat": {"bits": 6, "clip": 15.0, "embedding_bits": 8, "embedding_clip": 9.0},
}
# What helps alone, all at once.
TOGETHER = {
    "model.value_residual": True,
    "model.gated_attention": True,
    "model.value_embedding_layers": [-2, -1],
    "model.bigram_buckets": 4096,
    "model.tied_embeddings": False,
    "model.leaky_slope": 0.9,
    "model.rope_dims": 32,
}
FOUR_BITS = {"quant.bits": 4, "quant.embedding_extra_bits": 4, "quant.clip": 5.0, "qat.bits": 4, "qat.clip": 5.0}
# Name: what is set otherwise than in the default. Gated feed-forwards get two thirds of the width: equal parameters.
VARIANTS: dict[str, dict] = {
    "default": {},
    "attention: multi-head (no GQA)": {"model.kv_heads": 4},
    "attention: rotary on all dimensions": {"model.rope_dims": 32},
    "attention: no rotary": {"model.rope_dims": 0},
    "attention: NTK base (as if 32 were the base length)": {"model.rope_base_length": 32},
    "attention: XSA on no layer": {"model.xsa_layers": 0},
    "attention: XSA on all layers": {"model.xsa_layers": 6},
    "attention: value residual": {"model.value_residual": True},
    "attention: gated heads": {"model.gated_attention": True},
    "attention: value embeddings, last 2 layers": {"model.value_embedding_layers": [-2, -1]},
    "attention: query gain from 1": {"model.qk_gain": 1.0},
    "attention: query gain from 5": {"model.qk_gain": 5.0},
    "embedding: no BigramHash": {"model.bigram_buckets": 0},
    "embedding: BigramHash, linear form": {"model.bigram_hash": "linear"},
    "embedding: BigramHash, 4 times the buckets": {"model.bigram_buckets": 4096},
    "embedding: no SmearGate": {"model.smear_gate": False},
    "embedding: untied head": {"model.tied_embeddings": False},
    "residual: no U-Net skips": {"model.unet_skips": "none"},
    "residual: gated U-Net skips": {"model.unet_skips": "gated"},
    "residual: no mix with x0": {"model.residual_mix": False},
    "residual: no depth scale": {"model.depth_scale": False},
    "feed-forward: ReLU²": {"model.leaky_slope": 0.0},
    "feed-forward: LeakyReLU², slope 0.9": {"model.leaky_slope": 0.9},
    "feed-forward: Star-ReLU": {"model.activation": "star_relu"},
    "feed-forward: SwiGLU": {"model.activation": "swiglu", "model.mlp_multiple": 2.0},
    "feed-forward: SquareGLU": {"model.activation": "square_glu", "model.mlp_multiple": 2.0},
    "feed-forward: 4 times the width": {"model.mlp_multiple": 4.0},
    "depth: recurrence appended, layers 2 and 3": {"model.recurrence": "append"},
    "depth: recurrence inserted, layers 2 and 3": {"model.recurrence": "insert"},
    "depth: recurrence inserted, from 35 % on": {"model.recurrence": "insert", "train.recurrence_start": 0.35},
    "depth: mixture of depths, half the tokens, layers 2 to 4": {"model.mod_layers": [2, 3, 4]},
    "loss: multi-token prediction, 1 head": {"train.mtp_heads": 1},
    "loss: multi-token prediction, 2 heads": {"train.mtp_heads": 2},
    "loss: distillation from the average": {"train.distill_weight": 0.08},
    "Muon: row normalisation (MuonEq-R)": {"train.row_normalise": True},
    "Muon: Polar Express": {"train.orthogonaliser": "polar_express"},
    "Muon: momentum 0.92 to 0.99": {"train.momentum_start": 0.92, "train.momentum": 0.99},
    "Muon: half the rate": {"train.muon_lr": 0.015},
    "Muon: twice the rate": {"train.muon_lr": 0.06},
    "rates: decoder twice": {"train.decoder_lr_multiplier": 2.0},
    "rates: cosine warm-down": {"train.warmdown_shape": "cosine"},
    "rates: minimum 0.1": {"train.min_lr_fraction": 0.1},
    "rates: warm-down over all of training": {"train.warmdown_fraction": 1.0},
    "decay: none": {"train.weight_decay": 0.0, "train.adam_weight_decay": 0.0},
    "decay: 0.2 for matrices": {"train.weight_decay": 0.2},
    "decay: 0.2, tapered to half": {"train.weight_decay": 0.2, "train.weight_decay_final": 0.5},
    "gradient: clip 0.3": {"train.gradient_clip": 0.3},
    "gradient: no clip": {"train.gradient_clip": 0.0},
    "gradient: Grokfast": {"train.grokfast_weight": 0.08},
    "average: none": {"train.average": "none"},
    "average: EMA 0.98": {"train.ema_decay": 0.98},
    "average: SWA": {"train.average": "swa", "train.swa_every": 10},
    "order: sequential": {"train.order": "sequential"},
    "order: coprime stride": {"train.order": "coprime"},
    "6 bits: rounding from multiplier 0.3": {"qat.start": 0.3},
    "6 bits: entropy penalty": {"qat.entropy_weight": 3e-4},
    "6 bits: CROWN-Q": {"qat.crown_weight": 300.0},
    "6 bits: magnitude pruning 15 %": {"qat.prune_fraction": 0.15},
    "4 bits": FOUR_BITS,
    "4 bits: rounding from multiplier 0.15": FOUR_BITS | {"qat.start": 0.15},
    "4 bits: rounding from multiplier 0.5": FOUR_BITS | {"qat.start": 0.5},
    "4 bits: entropy penalty": FOUR_BITS | {"qat.entropy_weight": 3e-4},
    "4 bits: CROWN-Q": FOUR_BITS | {"qat.crown_weight": 300.0},
    "together": TOGETHER,
    "together, no U-Net skips": TOGETHER | {"model.unet_skips": "none"},
    "together, no U-Net skips, no depth scale": TOGETHER | {"model.unet_skips": "none", "model.depth_scale": False},
    "together, gated U-Net skips": TOGETHER | {"model.unet_skips": "gated"},
    "together, feed-forward of twice the width": TOGETHER | {"model.mlp_multiple": 2.0},
    "together, BigramHash as it was": TOGETHER | {"model.bigram_buckets": 1024},
    "together, tied head": TOGETHER | {"model.tied_embeddings": True},
}


PREFACE = f"""# What each technique is worth

Each row is the default with the change that it names, trained for as long: 6 layers of width 128, 180 steps of 2,048 tokens,
one thread. Scores are bits per byte of {HOLDOUT_TOKENS:,} holdout tokens. **difference**: from the default, paired by
seed, with the standard deviation over seeds; below about 0.002 it is noise
(the same run with another order of summation differs by 0.001).
**rounded**: the difference after rounding to nearest on the grids of `quant`; **gap**: the cost of rounding. **time**:
CPU time per step relative to the default. Compare rows of "4 bits" and "together" with the first row of their kind.
The sequential order reads the oldest addresses first, and the holdout tokens are from the oldest too, which explains its gain.
"""


def params_of(overrides: dict) -> dict:
    """The sections of params.yaml with the table's default and a variant's changes."""
    params = read_yaml(ROOT / "params.yaml")
    for section, values in DEFAULT.items():
        params[section] |= values
    for key, value in overrides.items():
        section, name = key.split(".")
        params[section][name] = value
    return params


def train(name: str, seed: int) -> dict:
    """One run, in this process: its scores, its size and its milliseconds a step."""
    keep_freed_memory()
    torch.set_num_threads(1)
    params = params_of(VARIANTS[name])
    config = dataclasses.replace(parse(params["train"], "train", Train), seed=seed)
    qat, quant = parse(params["qat"], "qat", Qat), parse(params["quant"], "quant", Quant)
    tokenizer = Tokenizer.from_bytes((TOKENS / "tokenizer.model").read_bytes())
    model_params = dataclasses.asdict(parse(params["model"], "model", Model))
    data = {"vocabulary_size": tokenizer.vocabulary_size, "bos": tokenizer.bos, "sequence_length": config.sequence_length}
    model = GPT(Architecture(**model_params, **data))
    model.initialise(seed)
    dtype = precision(config, torch.device("cpu"))
    training = TrainState.start(model, config, qat, dtype)
    losses = {phase: training.objective.loss(phase, dtype, training.teacher) for phase in training.phases()}
    tokens = read_split(TOKENS / "train", tokenizer.vocabulary_size)
    loader = WindowLoader(tokens, config.sequence_length, config.sequences_per_step, seed, config.order)
    start = time.process_time()
    while training.done < 1:
        train_step(training, loader.batch(training.step), losses.__getitem__)
    seconds = time.process_time() - start
    state = {name: tensor.clone() for name, tensor in training.exported().items()}
    matrices = quantise(prepare(state, {}, quant, model.architecture.layers), quant)
    return {
        "name": name,
        "seed": seed,
        "bpb": holdout_bpb(model, state, tokenizer),
        "rounded_bpb": holdout_bpb(model, dequantised(matrices, fp16_tensors(state, 10)), tokenizer),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "step_ms": 1000 * seconds / config.steps,
    }


def holdout_bpb(model: GPT, state: dict[str, torch.Tensor], tokenizer: Tokenizer) -> float:
    """Bits per byte of the first holdout tokens, in windows of the training length that do not overlap."""
    model.load_state_dict(state)
    tokens = read_split(TOKENS / "holdout", tokenizer.vocabulary_size)[: HOLDOUT_TOKENS + 1]
    length = model.architecture.sequence_length
    scores = score_windows(model.eval(), tokens, length, length)
    return bits_per_byte(scores["nats"], int(table_bytes(tokenizer).lossless_bytes[tokens[1:]].sum()))


def finished(path: Path) -> pd.DataFrame:
    columns = ["name", "seed", "bpb", "rounded_bpb", "parameters", "step_ms"]
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return pd.DataFrame([json.loads(line) for line in lines], columns=columns)


def work(path: Path, jobs: list[tuple[str, int]], workers: int) -> None:
    """Run the jobs that are not in the file yet, each in a process of its own, and append what they print."""
    done = set(finished(path)[["name", "seed"]].itertuples(index=False, name=None))
    waiting = [job for job in jobs if job not in done]
    running: list[subprocess.Popen] = []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    while waiting or running:
        while waiting and len(running) < workers:
            name, seed = waiting.pop(0)
            command = [sys.executable, "-m", "bench.ablation", "--one", name, str(seed)]
            running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment))
        for process in [process for process in running if process.poll() is not None]:
            running.remove(process)
            line = process.stdout.read()
            if process.returncode:
                sys.exit(f"error: {' '.join(process.args[3:])} failed")
            with path.open("a", encoding="utf-8") as file:
                file.write(line)
            print(line, end="", flush=True)
        time.sleep(0.2)


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a variant; differences are paired by seed."""
    default = runs[runs["name"] == "default"].set_index("seed")
    rows = []
    for name in [name for name in VARIANTS if name in set(runs["name"])]:
        own = runs[runs["name"] == name].set_index("seed")
        base = default.loc[own.index]
        difference = own["bpb"] - base["bpb"]
        rows.append(
            {
                "technique": name,
                "bpb": own["bpb"].mean(),
                "std": own["bpb"].std(),
                "difference": difference.mean(),
                "spread": difference.std(),
                "rounded": (own["rounded_bpb"] - base["rounded_bpb"]).mean(),
                "gap": (own["rounded_bpb"] - own["bpb"]).mean(),
                "time": (own["step_ms"] / base["step_ms"]).mean(),
                "parameters": own["parameters"].iloc[0],
                "seeds": len(own),
            }
        )
    return pd.DataFrame(rows)


def unclear(rows: pd.DataFrame) -> list[str]:
    """Variants whose difference is within the noise: less than twice its standard error."""
    error = rows["spread"] / np.sqrt(rows["seeds"])
    return rows.loc[(rows["difference"].abs() < 2 * error) & (rows["technique"] != "default"), "technique"].tolist()


def markdown(rows: pd.DataFrame) -> str:
    lines = [
        PREFACE,
        "| technique | bpb | difference | rounded | gap | time | parameters | seeds |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows.itertuples():
        lines.append(
            f"| {row.technique} | {row.bpb:.4f} ± {row.std:.4f} | {row.difference:+.4f} ± {row.spread:.4f} | "
            f"{row.rounded:+.4f} | {row.gap:.4f} | {row.time:.2f} | {row.parameters:,} | {row.seeds} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Each training technique on or off against the default.")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SEED"), help="a single run; prints its result as JSON")
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), help="variants, by name")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(train(arguments.one[0], int(arguments.one[1])), ensure_ascii=False))
        return
    path = RESULTS / "ablation.jsonl"
    names = dict.fromkeys(["default", *arguments.only])
    work(path, [(name, seed) for name in names for seed in SEEDS[:2]], arguments.workers)
    third = ["default", *unclear(table(finished(path)))]
    work(path, [(name, SEEDS[2]) for name in third], arguments.workers)
    rows = table(finished(path))
    (RESULTS / "ablation.md").write_text(markdown(rows), encoding="utf-8")
    print(markdown(rows))
    for row in rows.itertuples():
        print(f"figure {row.technique} = {row.difference:+.4f}")


if __name__ == "__main__":
    main()
