"""A whole state: which tensor gets which grid, the report, and the way back."""

import math

import pytest
import torch

from fairway.errors import InputError
from fairway.params import parse
from fairway.quant.config import Quant
from fairway.quant.gptq import gptq, output_error
from fairway.quant.grids import dequantise, entropy_bits, quantise, row_scales
from fairway.quant.quantiser import dequantise_state, quantise_state, role_of, summarise

PARAMS = Quant("gptq", 6, 12.85, 8, 20.0, 1000, 0.01, 128)


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "stream.embedding.weight": (100, 64),
        "stream.bigram.table.weight": (300, 16),
        "stream.bigram.projection.weight": (64, 16),  # 1,024 elements: small
        "blocks.0.up.weight": (96, 64),
        "blocks.0.down.weight": (64, 96),
        "blocks.0.residual_mix": (2, 4096),
        "blocks.0.attention_scale": (5000,),
        "stream.bigram.scale": (),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def hessian() -> torch.Tensor:
    x = torch.randn(200, 64, generator=torch.Generator().manual_seed(1)) @ torch.linspace(0.1, 1, 64 * 64).view(64, 64)
    return (x.T @ x / 200).double()


def test_roles():
    roles = {name: role_of(name, tensor) for name, tensor in state().items()}
    assert [name for name, role in roles.items() if role == "embedding"] == [
        "stream.embedding.weight",
        "stream.bigram.table.weight",
    ]
    assert [name for name, role in roles.items() if role == "matrix"] == ["blocks.0.up.weight", "blocks.0.down.weight"]
    assert role_of("a.weight", torch.zeros(64, 64)) == "small"
    assert role_of("a.weight", torch.zeros(64, 65)) == "matrix"


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("stream.embedding.weight", "embedding"),
        ("stream.bigram.table.weight", "embedding"),
        ("value_embedding.table.weight", "embedding"),
        ("value_embedding.projection.weight", "matrix"),
        ("stream.bigram.projection.weight", "matrix"),
        ("blocks.0.feed_forward.gate.weight", "matrix"),
        ("blocks.0.attention.gate_HD", "small"),
    ],
)
def test_the_end_of_a_name_decides_its_role(name, role):
    """A table inside something called an embedding is looked up; the projection beside it multiplies."""
    assert role_of(name, torch.zeros(100, 64)) == role


def test_each_matrix_gets_its_grid_and_its_method():
    weights, hessians = state(), {"blocks.0.up.weight": hessian()}
    matrices, small, report = quantise_state(weights, hessians, PARAMS)
    embedding = weights["stream.embedding.weight"]
    scales = row_scales(embedding, 8, 20.0)
    assert torch.equal(matrices["stream.embedding.weight"].scales, scales)
    assert torch.equal(matrices["stream.embedding.weight"].integers, quantise(embedding, scales, 8))
    up = weights["blocks.0.up.weight"]
    solution = gptq(up, hessians["blocks.0.up.weight"], row_scales(up, 6, 12.85), 6, 0.01, 128)
    assert torch.equal(matrices["blocks.0.up.weight"].integers, solution.integers)
    assert [(row["method"], row["bits"]) for row in report] == [("rtn", 8), ("rtn", 8), ("gptq", 6), ("rtn", 6)]
    assert list(matrices) == [row["name"] for row in report]
    assert set(small) == set(weights) - set(matrices)
    assert all(tensor.dtype == torch.float16 for tensor in small.values())


def test_method_rtn_rounds_every_matrix_and_still_reports_the_output_error():
    weights = state()
    rtn = Quant("rtn", 6, 12.85, 8, 20.0, 1000, 0.01, 128)
    matrices, _, report = quantise_state(weights, {"blocks.0.up.weight": hessian()}, rtn)
    up, matrix = weights["blocks.0.up.weight"], matrices["blocks.0.up.weight"]
    assert torch.equal(matrix.integers, quantise(up, row_scales(up, 6, 12.85), 6))
    row = next(row for row in report if row["name"] == "blocks.0.up.weight")
    assert row["method"] == "rtn"
    assert row["output_error"] == output_error(up, dequantise(matrix.integers, matrix.scales), hessian())


def test_report_and_summary_are_what_the_matrices_say():
    weights = state()
    matrices, small, report = quantise_state(weights, {"blocks.0.up.weight": hessian()}, PARAMS)
    restored = dequantise_state(matrices, small)
    for row in report:
        weight = weights[row["name"]]
        assert row["relative_error"] == pytest.approx(((weight - restored[row["name"]]).norm() / weight.norm()).item())
        assert row["entropy"] == entropy_bits(matrices[row["name"]].integers)
        assert math.isnan(row["output_error"]) == (row["name"] != "blocks.0.up.weight")
    metrics = summarise(weights, matrices, report)
    every = torch.cat([weights[name].flatten() for name in matrices])
    errors = torch.cat([(weights[name] - restored[name]).flatten() for name in matrices])
    assert metrics["relative_error"] == pytest.approx((errors.norm() / every.norm()).item())
    bits = sum(entropy_bits(matrix.integers) * matrix.integers.numel() for matrix in matrices.values())
    assert metrics["bits_per_weight"] == pytest.approx(bits / len(every))
    assert (metrics["gptq_matrices"], metrics["rtn_matrices"], metrics["fallback_matrices"]) == (1, 3, 0)


def test_dequantised_state_has_every_tensor_in_float32():
    weights = state()
    matrices, small, _ = quantise_state(weights, {}, PARAMS)
    restored = dequantise_state(matrices, small)
    assert {name: (t.shape, t.dtype) for name, t in restored.items()} == {
        n: (t.shape, torch.float32) for n, t in weights.items()
    }
    assert torch.equal(restored["blocks.0.residual_mix"], weights["blocks.0.residual_mix"].half().float())
    torch.testing.assert_close(restored["blocks.0.up.weight"], weights["blocks.0.up.weight"], atol=0.3, rtol=0)


def test_each_tensor_is_announced_when_done():
    heard = []
    quantise_state(state(), {}, PARAMS, heard.append)
    assert heard == list(state())


def test_params_out_of_range_name_the_key():
    values = {
        "method": "gptq",
        "bits": 9,
        "clip": 12.85,
        "embedding_bits": 8,
        "embedding_clip": 20.0,
        "calibration_tokens": 1000,
        "damping": 0.01,
        "block": 128,
    }
    with pytest.raises(InputError, match=r"'quant\.bits' is 9; expected a whole number at least 2 and at most 8"):
        parse(values, "quant", Quant)
    assert parse(values | {"bits": 6}, "quant", Quant) == PARAMS
