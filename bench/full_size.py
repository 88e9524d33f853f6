"""A network of #1406's full size (27 M parameters) and its curvature, for benchmarks that need no good network.

Trained for a few steps on the default run's tokens and kept under .ckpt/bench, because 20 steps take minutes on 2 cores.
"""

import dataclasses
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from fairway import presets
from fairway.lm import checkpoint
from fairway.lm.config import Architecture, Model
from fairway.lm.model import GPT
from fairway.params import load, parse
from fairway.quant import calibration, hessian
from fairway.text.shards import read_split
from fairway.text.tokenizer import Tokenizer
from fairway.train.config import Qat, Train
from fairway.train.loader import WindowLoader
from fairway.train.precision import precision
from fairway.train.step import TrainState, train_step
from stages.common import Progress

KEPT = Path(".ckpt/bench")
TOKENS = Path("artifacts/tokenize")
LENGTH, TOKENS_PER_STEP, CALIBRATION_WINDOWS = 256, 2048, 128


def full_size(steps: int) -> tuple[Architecture, dict[str, torch.Tensor], dict[str, hessian.Curvature]]:
    """Architecture, weights and curvatures after so many steps; made once and kept."""
    weights, moments = KEPT / f"full_size-{steps}.safetensors", KEPT / f"full_size-{steps}-fisher.safetensors"
    if not moments.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        model = _trained(steps)
        checkpoint.save(weights, model.architecture, {name: tensor.detach() for name, tensor in model.state_dict().items()})
        tokens = read_split(TOKENS / "train", model.architecture.vocabulary_size)
        windows = calibration.windows(tokens, CALIBRATION_WINDOWS, LENGTH, 8)
        curvatures = hessian.collect(model.eval(), _shown(windows, CALIBRATION_WINDOWS * LENGTH, "curvature"))
        flat = {f"{name}.{side}": getattr(own, side).contiguous() for name, own in curvatures.items() for side in vars(own)}
        save_file(flat, moments)
    architecture, state = checkpoint.load(weights)
    flat = load_file(moments)
    names = {name.rpartition(".")[0] for name in flat}
    return architecture, state, {n: hessian.Curvature(flat[f"{n}.hessian_CC"], flat[f"{n}.fisher_R"]) for n in names}


def _trained(steps: int) -> GPT:
    """#1406's network after `steps` small steps of the default training section, at its own learning rates."""
    tokenizer = Tokenizer.from_bytes((TOKENS / "tokenizer.model").read_bytes())
    model_params = presets.content(presets.find("pr1406"))["model"]
    sizes = {"vocabulary_size": tokenizer.vocabulary_size, "bos": tokenizer.bos, "sequence_length": LENGTH}
    model = GPT(Architecture(**dataclasses.asdict(parse(model_params, "model", Model)), **sizes))
    model.initialise(0)
    changes = {"steps": steps, "tokens_per_step": TOKENS_PER_STEP, "sequence_length": LENGTH, "compile": False}
    config = dataclasses.replace(load("params.yaml", "train", Train), **changes)
    dtype = precision(config, torch.device("cpu"))
    state = TrainState.start(model, config, load("params.yaml", "qat", Qat), dtype)
    losses = {phase: state.objective.loss(phase, dtype, state.teacher) for phase in state.phases()}
    tokens = read_split(TOKENS / "train", tokenizer.vocabulary_size)
    loader = WindowLoader(tokens, LENGTH, config.sequences_per_step, config.seed, config.order)
    progress = Progress(steps, "steps", "full-size network")
    while state.done < 1:
        loss = train_step(state, loader.batch(state.step), losses.__getitem__)
        progress.advance(1, f"loss {loss:.3f}")
    progress.close()
    model.load_state_dict(state.exported())
    return model


def _shown(batches, total: int, label: str):
    progress = Progress(total, "tokens", label)
    for tokens_BT in batches:
        yield tokens_BT
        progress.advance(tokens_BT.numel())
    progress.close()
