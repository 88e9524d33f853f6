"""compress: integer weights through the arithmetic coder into `model.fwy`, and everything into `submission.pyz`.

The weights file is decoded again and compared before anything is written. A submission above the budget is refused,
with the setting that would make it fit: the integers at hand, put on coarser grids, tell how large that would be.
"""

import dataclasses
import time
from pathlib import Path

import numpy as np

from fairway.codec import container, packing
from fairway.codec.config import Compress
from fairway.codec.weights import encode_matrix
from fairway.errors import InputError
from fairway.params import load
from fairway.quant import artifact
from fairway.quant.roles import role_of
from stages import shell

MODULES = ["fairway.codec.runtime", "fairway.codec.text"]
ROOT = Path(__file__).resolve().parents[1]
Matrices = dict[str, tuple[np.ndarray, np.ndarray, int]]


def main() -> None:
    params = load(shell.PARAMS, "compress", Compress)
    architecture, quantised, small = artifact.load(shell.ARTIFACTS / "quant" / "integers.safetensors")
    roles = {name: role_of(name, matrix.integers) for name, matrix in quantised.items()} | dict.fromkeys(small, "small")
    matrices = {name: (matrix.integers.numpy(), matrix.scales.numpy(), matrix.bits) for name, matrix in quantised.items()}
    small = {name: tensor.numpy() for name, tensor in small.items()}
    config = dataclasses.asdict(architecture)
    start = time.monotonic()
    model = container.write(config, matrices, small)
    encoded = time.monotonic()
    check(container.read_integers(model), (config, matrices, small))
    decoded = time.monotonic()
    tokenizer = (shell.ARTIFACTS / "tokenize" / "tokenizer.model").read_bytes()
    pyz = packing.build(MODULES, {packing.TOKENIZER: tokenizer, packing.WEIGHTS: model}, ROOT)
    if len(pyz) > params.budget_bytes:
        raise InputError(over_budget(len(pyz), params.budget_bytes, matrices))

    weights = {name: values.size for name, values in small.items()} | {name: part[0].size for name, part in matrices.items()}
    metrics = describe(packing.sizes(pyz), params.budget_bytes, sum(weights.values()))
    records = container.record_sizes(model)
    rows = [{"role": roles[name], "name": name, "weights": weights[name], "bytes": records[name]} for name in records]
    rows.append({"role": "container", "name": "header", "weights": 0, "bytes": len(model) - sum(records.values())})
    timing = {"seconds": time.monotonic() - start, "encode_seconds": encoded - start, "decode_seconds": decoded - encoded}

    shell.write_bytes(shell.ARTIFACTS / "compress" / packing.WEIGHTS, model)
    shell.write_bytes(shell.ARTIFACTS / "compress" / "submission.pyz", pyz)
    shell.write_json(shell.REPORTS / "compress" / "metrics.json", metrics)
    shell.write_tsv(shell.REPORTS / "compress" / "roles.tsv", rows)
    shell.write_json(shell.REPORTS / "compress" / "timing.json", timing)
    print(f"compress: submission.pyz {len(pyz):,} bytes, {metrics['headroom_bytes']:,} below the budget")


def describe(sizes: dict[str, int], budget: int, parameters: int) -> dict:
    """The stage's metrics. The challenge counts code and weights, and not the tokenizer."""
    return {
        "artifact_bytes": sizes["total"],
        "headroom_bytes": budget - sizes["total"],
        "code_bytes": sizes["code_bytes"],
        "tokenizer_bytes": sizes["tokenizer_bytes"],
        "weights_bytes": sizes["weights_bytes"],
        "challenge_bytes": sizes["code_bytes"] + sizes["weights_bytes"],
        "bits_per_weight": sizes["weights_bytes"] * 8 / parameters,
        "parameters": parameters,
    }


def check(found: tuple[dict, Matrices, dict], given: tuple[dict, Matrices, dict]) -> None:
    """Raises RuntimeError, a bug in the coder, unless the decoded network is the given one bit for bit."""
    same = found[0] == given[0] and found[1].keys() == given[1].keys() and found[2].keys() == given[2].keys()
    same = same and all(np.array_equal(a, b) for name in given[1] for a, b in zip(found[1][name], given[1][name], strict=True))
    same = same and all(found[2][name].tobytes() == values.tobytes() for name, values in given[2].items())
    if not same:
        raise RuntimeError("model.fwy does not decode to the weights it was made from")


def over_budget(size: int, budget: int, matrices: Matrices) -> str:
    """The sentence for a submission that is too large: the most bits that fit, or the least size that bits can reach."""
    sentence = f"submission.pyz takes {size:,} bytes, {size - budget:,} more than compress.budget_bytes {budget:,}"
    smaller = size
    for bits in range(max((own for _, _, own in matrices.values()), default=2) - 1, 1, -1):
        smaller = size - sum(saved_bytes(integers, own, bits) for integers, _, own in matrices.values())
        if smaller <= budget:
            return f"{sentence}; with quant.bits and quant.embedding_bits at most {bits} it takes about {smaller:,}"
    return f"{sentence}; the least that quant.bits can reach is about {smaller:,}, so lower model.width or model.layers too"


def saved_bytes(integers: np.ndarray, own: int, bits: int) -> int:
    """Bytes that a matrix on a grid of `own` bits gives back on one of `bits` with the same clip."""
    ratio = min(1.0, (2 ** (bits - 1) - 1) / (2 ** (own - 1) - 1))
    return len(encode_matrix(integers)) - len(encode_matrix(np.rint(integers * ratio).astype(np.int8)))


if __name__ == "__main__":
    shell.run(main)
