"""compress: code the integer weights into `model.fwy`, and pack everything into `submission.pyz`.

Decodes the weights file again and compares it before writing anything. Refuses a submission above the budget.
"""

import dataclasses
import time
from pathlib import Path

import numpy as np

from fairway.codec import archive, container
from fairway.codec.config import Compress
from fairway.errors import InputError
from fairway.lm.config import Architecture
from fairway.lm.parameters import role_of
from fairway.params import load
from fairway.quant import artifact
from fairway.quant.config import TOLERANCE, Quant
from fairway.quant.matrix import QuantisedMatrix
from fairway.submission import packing
from fairway.text.tokenizer import read_tokenizer
from stages import common

ROOT = Path(__file__).resolve().parents[1]
Matrices = dict[str, QuantisedMatrix]
Fp16 = dict[str, np.ndarray]


def main() -> None:
    params = load(common.PARAMS, "compress", Compress)
    architecture, matrices, fp16 = artifact.load_whole(common.ARTIFACTS / "quant" / "integers.safetensors")
    tokenizer = serialized_tokenizer()
    config = dataclasses.asdict(architecture)
    start = time.monotonic()
    model = container.write(config, matrices, fp16, params.coder)
    encoded = time.monotonic()
    check(container.read_integers(model), (config, matrices, fp16))
    decoded = time.monotonic()
    pyz = packing.build(packing.MODULES, {packing.TOKENIZER: tokenizer, packing.WEIGHTS: model}, ROOT)
    check_target(packing.sizes(pyz), load(common.PARAMS, "quant", Quant).target_bytes)
    if len(pyz) > params.budget_bytes:
        raise InputError(
            f"submission.pyz takes {len(pyz):,} bytes, {len(pyz) - params.budget_bytes:,} more than compress.budget_bytes "
            f"{params.budget_bytes:,}; lower quant.bits, or set quant.target_bytes {params.budget_bytes} to have it filled"
        )

    weights = {name: values.size for name, values in fp16.items()} | {name: m.integers.size for name, m in matrices.items()}
    roles = dict.fromkeys(fp16, "fp16") | {name: role_of(name, m.integers.shape) for name, m in matrices.items()}
    metrics = describe(packing.sizes(pyz), params.budget_bytes, sum(weights.values()))
    records = container.record_sizes(model)
    rows = [{"role": roles[name], "name": name, "weights": weights[name], "bytes": records[name]} for name in records]
    rows.append({"role": "container", "name": "header", "weights": 0, "bytes": len(model) - sum(records.values())})
    timing = {"seconds": time.monotonic() - start, "encode_seconds": encoded - start, "decode_seconds": decoded - encoded}

    common.write_bytes(common.ARTIFACTS / "compress" / packing.WEIGHTS, model)
    common.write_bytes(common.ARTIFACTS / "compress" / "submission.pyz", pyz)
    common.write_json(common.REPORTS / "compress" / "metrics.json", metrics)
    common.write_tsv(common.REPORTS / "compress" / "roles.tsv", rows)
    common.write_json(common.REPORTS / "compress" / "timing.json", timing)
    print(f"compress: submission.pyz {len(pyz):,} bytes, {metrics['headroom_bytes']:,} below the budget")


def serialized_tokenizer() -> bytes:
    """The tokenizer that goes into the submission. Raises InputError when it is damaged."""
    path = common.ARTIFACTS / "tokenize" / "tokenizer.model"
    read_tokenizer(path)
    return path.read_bytes()


def check_target(sizes: dict[str, int], target: int) -> None:
    """Verify `quant.target_bytes` (0: none), for which the stage quant assumes that code takes `archive.CODE_BYTES`.

    Raises InputError when the submission is larger; prints the same message when smaller code leaves over 0.1 % unused.
    """
    total, code = sizes["total"], sizes["code_bytes"]
    sentence = (
        f"submission.pyz takes {total:,} bytes for a quant.target_bytes of {target:,}, because its code takes {code:,} and not "
        f"{archive.CODE_BYTES:,}; set CODE_BYTES in fairway/codec/archive.py to {code} and run `dvc repro`"
    )
    if target and total > target:
        raise InputError(sentence)
    if total < (1 - TOLERANCE) * target and code < archive.CODE_BYTES:
        print(f"compress: {sentence}", flush=True)


def describe(sizes: dict[str, int], budget: int, parameters: int) -> dict:
    """The stage's metrics. The challenge counts code and weights, but not the tokenizer."""
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


def check(found: tuple[dict, Matrices, Fp16], given: tuple[dict, Matrices, Fp16]) -> None:
    """Raises RuntimeError, for a bug in the coder, unless the decoded network equals the given one bit for bit."""
    (found, found_grids), (given, given_grids) = (artifact.to_tensors(Architecture(**c), *rest) for c, *rest in (found, given))
    same = found_grids == given_grids and found.keys() == given.keys()
    if not same or any(found[name].tobytes() != given[name].tobytes() for name in given):
        raise RuntimeError("model.fwy does not decode to the weights it was made from")


if __name__ == "__main__":
    common.run(main)
