"""quant: round the adapted checkpoint to integer grids, by GPTQ with curvature from calibration text.

Nothing here sees the holdout or the validation text. Several ranks share the calibration, the first one rounds. With a byte
budget (`quant.target_bytes`) it codes the weights at several step sizes and adds the bytes of the rest of the submission.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.distributed as dist

from fairway.codec import archive, container
from fairway.codec.config import Compress
from fairway.files import replacing
from fairway.lm import checkpoint
from fairway.lm.config import Architecture
from fairway.lm.model import GPT
from fairway.params import load
from fairway.quant import allocation, artifact, calibration, hessian, quantiser
from fairway.quant.config import Quant
from fairway.quant.matrix import QuantisedMatrix
from fairway.text.shards import read_split
from fairway.text.tokenizer import read_tokenizer
from fairway.train.ranks import Ranks
from stages import common
from stages.launch import shared

SPLIT = "train"  # of calibration
BATCH_TOKENS = 4096  # per calibration step: limits the memory of the logits; larger batches are no faster
SEED = 0  # of generated and random text


def main() -> None:
    params, coder = load(common.PARAMS, "quant", Quant), load(common.PARAMS, "compress", Compress).coder
    with shared("quant") as ranks:
        start = time.monotonic()
        model = checkpoint.network(common.ARTIFACTS / "prequant_ttt" / "checkpoint.safetensors").to(ranks.device).eval()
        curvatures, tokens = calibrate(model, params, ranks)
        if ranks.rank == 0:
            timing = {"calibration_seconds": time.monotonic() - start, "calibration_tokens": tokens, "world_size": ranks.size}
            quantise_and_write(model, curvatures, params, coder)
            common.write_ledger("quant", SPLIT, tokens if params.calibration == "train" else 0)
            common.write_json(common.REPORTS / "quant" / "timing.json", {"seconds": time.monotonic() - start} | timing)


def calibrate(model: GPT, params: Quant, ranks: Ranks) -> tuple[dict[str, hessian.Curvature], int]:
    """The curvature of every weight and the number of calibration tokens; none where no setting needs it."""
    if params.method != "gptq" and params.allocation == "uniform" and not params.repair_matrices and not params.prune_ones:
        return {}, 0
    architecture = model.architecture
    train = read_split(common.ARTIFACTS / "tokenize" / SPLIT, architecture.vocabulary_size)
    length = min(architecture.sequence_length, len(train))
    count = max(params.calibration_tokens // length, 1)
    batch = max(BATCH_TOKENS // length, 1)
    share = {"rank": ranks.rank, "ranks": ranks.size}
    if params.calibration == "train":
        count = min(count, len(train) // length)
        batches = calibration.windows(train, count, length, batch, **share)
    elif params.calibration == "generated":
        batches = calibration.generated(model, count, length, batch, SEED, params.calibration_temperature, **share)
    else:
        batches = calibration.random(architecture.vocabulary_size, count, length, batch, SEED, **share)
    reduce = dist.all_reduce if ranks.size > 1 else lambda tensor: None
    return hessian.collect(model, shown(batches, count * length // ranks.size), reduce), count * length


def shown(batches: Iterator[torch.Tensor], total: int) -> Iterator[torch.Tensor]:
    """The same batches, while showing progress."""
    progress = common.Progress(total, "tokens", "quant: calibration")
    for tokens_BT in batches:
        yield tokens_BT
        progress.advance(tokens_BT.numel())
    progress.close()


def quantise_and_write(model: GPT, curvatures: dict[str, hessian.Curvature], params: Quant, coder: str) -> None:
    """Write the artifact, the metrics and the table of matrices."""
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}  # in the order of the network
    fp16 = quantiser.fp16_tensors(state, params.small_mantissa_bits)
    prepared = quantiser.prepare(state, curvatures, params, model.architecture.layers)
    log2_step_scale = 0.0
    if params.target_bytes:
        size_at = submission_size(model.architecture, prepared, fp16, params, coder)
        log2_step_scale = allocation.fill(size_at, params.target_bytes, sum(matrix.weight_RC.numel() for matrix in prepared))
    matrices = rounded(prepared, params, log2_step_scale)
    table = quantiser.describe(prepared, matrices, params)
    metrics = quantiser.summarise(table) | {"log2_step_scale": log2_step_scale}
    for row in table:
        if row["method"] == "fallback":
            print(f"{row['name']}: no Hessian, or none that damping makes positive definite; rounded to nearest", flush=True)
    with replacing(common.ARTIFACTS / "quant" / "integers.safetensors") as path:
        artifact.save(path, model.architecture, matrices, fp16)
    common.write_json(common.REPORTS / "quant" / "metrics.json", metrics)
    common.write_tsv(common.REPORTS / "quant" / "matrices.tsv", table)
    print(
        f"quant: entropy of {metrics['entropy_bits_per_weight']:.3f} bits per weight, "
        f"estimated loss of {metrics['estimated_loss']:.4f} nats per token"
    )


def rounded(prepared: list[quantiser.Prepared], params: Quant, log2_step_scale: float) -> dict[str, QuantisedMatrix]:
    progress = common.Progress(len(prepared), "matrices", "quant: rounding")
    matrices = quantiser.quantise(prepared, params, log2_step_scale, lambda name: progress.advance(1, name))
    progress.close()
    return matrices


def submission_size(
    architecture: Architecture, prepared: list[quantiser.Prepared], fp16: dict[str, np.ndarray], params: Quant, coder: str
) -> Callable[[float], int]:
    """The bytes of the whole submission, as a function of the log2 of a factor on all steps, by quantising and coding."""
    path = common.ARTIFACTS / "tokenize" / "tokenizer.model"
    read_tokenizer(path)  # raises InputError when it is damaged
    rest = archive.CODE_BYTES + archive.smallest(path.read_bytes())[1]
    config = dataclasses.asdict(architecture)

    def size_at(log2_step_scale: float) -> int:
        size = rest + len(container.write(config, quantiser.quantise(prepared, params, log2_step_scale), fp16, coder))
        scale = f"{2**log2_step_scale:.4f}"
        print(f"quant: {size:,} bytes with steps times {scale}, for a budget of {params.target_bytes:,}", flush=True)
        return size

    return size_at


if __name__ == "__main__":
    common.run(main)
