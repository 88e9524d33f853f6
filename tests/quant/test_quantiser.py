"""Quantising a network: every param changes only the parts that it names, and the table describes each matrix."""

import dataclasses
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairway.quant import quantiser
from fairway.quant.grids import entropy_bits, shortened
from fairway.quant.hessian import Curvature
from fairway.quant.matrix import QuantisedMatrix
from fairway.quant.quantiser import describe, fp16_tensors, prepare, summarise

LAYERS = 3
SHAPES = {
    "stream.embedding.weight": (100, 64),
    "stream.bigram.table.weight": (300, 16),
    "stream.bigram.projection.weight": (96, 48),
    "blocks.0.attention.query.weight": (72, 64),
    "blocks.0.feed_forward.up.weight": (96, 64),
    "blocks.1.attention.query.weight": (72, 64),
    "blocks.2.feed_forward.down.weight": (64, 96),
    "blocks.0.residual_mix": (2, 4096),
    "blocks.0.attention_scale": (5000,),
    "stream.bigram.scale": (),
}
MATRICES = list(SHAPES)[:7]
EMBEDDINGS, REST = MATRICES[:2], MATRICES[2:]
STATE = {
    name: torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed, (name, shape) in enumerate(SHAPES.items())
}


def curvature(name: str) -> Curvature:
    """Of correlated inputs, one of them always zero, and rows of different cost."""
    rows, columns = SHAPES[name]
    generator = torch.Generator().manual_seed(columns)
    x = torch.randn(200, columns, generator=generator, dtype=torch.float64)
    x = x @ (torch.randn(columns, columns, generator=generator, dtype=torch.float64) + 2 * torch.eye(columns))
    x[:, 5] = 0
    return Curvature(x.T @ x / 200, torch.rand(rows, generator=generator, dtype=torch.float64) ** 2 + 0.01)


CURVATURES = {name: curvature(name) for name in MATRICES}


def quantised(params, curvatures: dict[str, Curvature] = CURVATURES, **options) -> dict[str, QuantisedMatrix]:
    return quantiser.quantise(prepare(STATE, curvatures, params, LAYERS), params, **options)


def fields_of(matrix: QuantisedMatrix) -> dict:
    correction = [part.tobytes() for factor in matrix.correction or () for part in (factor.integers, factor.scales)]
    stored = {"integers": matrix.integers.tobytes(), "scales": matrix.scales.tobytes(), "correction": correction}
    return stored | {name: getattr(matrix, name) for name in ("integer_bits", "states", "rotation")}


def differences(one: dict[str, QuantisedMatrix], other: dict[str, QuantisedMatrix]) -> dict[str, set[str]]:
    """Part of a matrix → the matrices in which it differs."""
    found = {}
    for name in one:
        ours, theirs = fields_of(one[name]), fields_of(other[name])
        for part in ours:
            if ours[part] != theirs[part]:
                found.setdefault(part, set()).add(name)
    return found


ALL = set(MATRICES)


@pytest.mark.parametrize(
    ("base", "changes", "expected"),
    [
        ({}, {"method": "rtn"}, {"integers": ALL}),
        ({}, {"bits": 5}, {"integers": ALL, "scales": ALL, "integer_bits": ALL}),
        ({}, {"clip_rule": "maximum"}, {"integers": ALL, "scales": ALL}),
        ({"clip_rule": "percentile_row"}, {"clip_rule": "percentile_matrix"}, {"integers": ALL, "scales": ALL}),
        ({}, {"clip": 9.0}, {"integers": set(REST), "scales": set(REST)}),
        ({}, {"embedding_clip": 9.0}, {"integers": set(EMBEDDINGS), "scales": set(EMBEDDINGS)}),
        ({}, {"per_tensor": True}, {"integers": ALL, "scales": ALL}),
        ({"clip": 0.5, "embedding_clip": 0.5}, {"scale_floor": True}, {"integers": ALL, "scales": ALL}),
        ({"clip": 30.0, "embedding_clip": 30.0}, {"scale_floor": True}, {}),
        ({}, {"scale_mantissa_bits": 2}, {"integers": ALL, "scales": ALL}),
        ({}, {"allocation": "sensitivity"}, {"integers": ALL, "scales": ALL, "integer_bits": ALL}),
        ({}, {"trellis": 4}, {"integers": ALL, "scales": ALL, "states": ALL}),
        ({"trellis": 4}, {"trellis": 8}, {"integers": ALL, "states": ALL}),
        ({}, {"rate_weight": 0.5}, {"integers": ALL}),
        ({}, {"rotation": "hadamard"}, {"integers": ALL, "rotation": ALL}),
        ({}, {"prune_fraction": 0.2}, {"integers": ALL, "scales": ALL}),
        ({}, {"prune_ones": 0.2}, {"integers": ALL}),
        ({"repair_matrices": 7}, {"repair_matrices": 0}, {"correction": ALL}),
        ({"repair_matrices": 7}, {"repair_rank": 2}, {"correction": ALL}),
        ({"repair_matrices": 7}, {"repair_bits": 3}, {"correction": ALL}),
        ({}, {"repair_rank": 2, "repair_bits": 3}, {}),
        ({}, {"damping": 0.3}, {"integers": ALL}),
        ({}, {"column_order": "natural"}, {"integers": ALL}),
        ({}, {"block": 7}, {}),
        ({"trellis": 8, "allocation": "sensitivity", "rate_weight": 0.3}, {"block": 7}, {}),
    ],
)
def test_each_param_changes_what_it_names_and_nothing_else(quant_params, base, changes, expected):
    assert differences(quantised(quant_params(**base)), quantised(quant_params(**(base | changes)))) == expected


@pytest.mark.parametrize("allocation", ["uniform", "sensitivity"])
@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"attention_extra_bits": 1}, [name for name in MATRICES if ".attention." in name]),
        ({"feed_forward_extra_bits": 1}, [name for name in MATRICES if ".feed_forward." in name]),
        ({"embedding_extra_bits": 1}, EMBEDDINGS),
        ({"finer_layers": [0], "finer_bits": 1}, [name for name in MATRICES if "blocks.0." in name]),
        ({"finer_layers": [-1], "finer_bits": 1}, [name for name in MATRICES if "blocks.2." in name]),
        ({"finer_layers": [], "finer_bits": 2}, []),
    ],
)
def test_extra_bits_make_exactly_their_matrices_finer(quant_params, allocation, changes, names):
    base = quant_params(allocation=allocation)
    before, after = quantised(base), quantised(dataclasses.replace(base, **changes))
    parts = ("integers", "scales", "integer_bits") if allocation == "uniform" else ("integers", "scales")
    assert differences(before, after) == {part: set(names) for part in parts if names}
    for name in names:
        finer = before[name].scales.astype(float) / after[name].scales
        np.testing.assert_allclose(finer, 63 / 31 if allocation == "uniform" else 2, rtol=2e-3)


def test_plain_settings_are_the_grid_of_the_section(quant_params):
    matrices = quantised(quant_params(method="rtn"))
    for name in MATRICES:
        weight = STATE[name].double().numpy()
        deviation = np.sqrt((weight**2).mean(axis=1))
        scales = ((20.0 if name in EMBEDDINGS else 12.85) * deviation / 31).astype(np.float16)
        np.testing.assert_array_equal(matrices[name].scales, scales)
        np.testing.assert_array_equal(matrices[name].integers, np.rint(weight / scales.astype(float)[:, None]).clip(-31, 31))
        assert (matrices[name].integer_bits, matrices[name].states, matrices[name].rotation) == (6, 0, 0)


def test_pruned_weights_are_the_smallest_of_each_matrix_and_stay_zero(quant_params):
    for trellis in (0, 8):
        for name, matrix in quantised(quant_params(prune_fraction=0.2, trellis=trellis)).items():
            magnitude = STATE[name].abs().flatten()
            assert not matrix.integers.flatten()[magnitude.argsort()[: int(0.2 * len(magnitude))]].any()


def test_one_step_for_a_matrix_and_steps_of_few_bits(quant_params):
    matrices = quantised(quant_params(per_tensor=True, scale_mantissa_bits=3))
    assert all(len(set(matrix.scales.tolist())) == 1 for matrix in matrices.values())
    scales = np.concatenate([matrix.scales for matrix in quantised(quant_params(scale_mantissa_bits=3)).values()])
    assert not (scales.view(np.uint16) & 0x7F).any()


@pytest.mark.parametrize("trellis", [0, 8])
def test_log2_step_scale_scales_every_step(quant_params, trellis):
    params = quant_params(trellis=trellis)
    plain, coarse = quantised(params), quantised(params, log2_step_scale=2.0)
    for name in MATRICES:
        np.testing.assert_array_equal(coarse[name].scales, 4 * plain[name].scales)
        assert entropy_bits(torch.from_numpy(coarse[name].integers)) < entropy_bits(torch.from_numpy(plain[name].integers)) - 1


@pytest.mark.parametrize("mantissa_bits", [0, 3, 10])
@pytest.mark.parametrize("changes", [{"allocation": "sensitivity"}, {"target_bytes": 10**6}])
def test_free_steps_never_clip_a_weight(quant_params, changes, mantissa_bits):
    params = quant_params(method="rtn", scale_mantissa_bits=mantissa_bits, **changes)
    matrices = quantised(params, log2_step_scale=-9.0)
    for name, matrix in matrices.items():
        assert matrix.integer_bits == 8 and 127 / 4 < np.abs(matrix.integers).max() <= 127
        error = np.abs(STATE[name].numpy() - matrix.weights())
        assert (error <= 0.5001 * matrix.scales.astype(float)[:, None]).all()


def test_sensitive_rows_get_finer_steps_and_bits_keep_their_meaning(quant_params):
    matrices, uniform = quantised(quant_params(allocation="sensitivity")), quantised(quant_params())
    for name, matrix in matrices.items():
        costs = CURVATURES[name].fisher_R.numpy() * matrix.scales.astype(float) ** 2
        np.testing.assert_allclose(costs, costs[0], rtol=2e-3)
    finer = sum(
        np.log2(matrices[name].scales / uniform[name].scales.astype(float)).sum() * SHAPES[name][1] for name in MATRICES
    )
    assert abs(finer / sum(matrix.integers.size for matrix in matrices.values())) < 1e-3


def test_the_ones_that_go_are_those_whose_change_costs_least(quant_params):
    before, after = quantised(quant_params(bits=3)), quantised(quant_params(bits=3, prune_ones=0.3))
    for name in MATRICES:
        columns, rows = CURVATURES[name].hessian_CC.diagonal().numpy(), CURVATURES[name].fisher_R.numpy()
        cost = np.outer(rows * before[name].scales.astype(float) ** 2, columns)
        candidates = np.flatnonzero(np.abs(before[name].integers) == 1)
        gone = candidates[cost.flatten()[candidates].argsort()[: int(0.3 * len(candidates))]]
        expected = before[name].integers.flatten()
        expected[gone] = 0
        np.testing.assert_array_equal(after[name].integers.flatten(), expected)


def test_calibration_that_saw_nothing_of_a_matrix_leaves_it_to_nearest(quant_params):
    """No curvature, one of zeros, or outputs that nothing depends on: other matrices stay the same."""
    unseen, silent = "blocks.0.attention.query.weight", "blocks.1.attention.query.weight"
    curvatures = CURVATURES | {
        silent: Curvature(CURVATURES[silent].hessian_CC, torch.zeros(72, dtype=torch.float64)),
        unseen: Curvature(torch.zeros(64, 64, dtype=torch.float64), torch.zeros(72, dtype=torch.float64)),
    }
    del curvatures[MATRICES[0]]
    params = quant_params(allocation="sensitivity")
    prepared = prepare(STATE, curvatures, params, LAYERS)
    table = {row["name"]: row for row in describe(prepared, quantiser.quantise(prepared, params), params)}
    fallen = {name for name, row in table.items() if row["method"] == "fallback"}
    assert fallen == {MATRICES[0], unseen}
    assert {name for name, row in table.items() if row["estimated_loss"] == -1} == fallen
    kept = prepare(STATE, {}, params, LAYERS)
    for ours, theirs in zip(prepared, kept, strict=True):
        assert torch.equal(ours.steps_R, theirs.steps_R) == (ours.name in fallen | {silent})
        assert ours.steps_R.isfinite().all() and (ours.steps_R > 0).all()


@pytest.mark.parametrize(
    "changes",
    [{}, {"trellis": 8, "allocation": "sensitivity"}, {"rotation": "hadamard"}, {"repair_matrices": 3}, {"method": "rtn"}],
)
def test_the_table_says_what_was_done(quant_params, changes):
    params = quant_params(**changes)
    prepared = prepare(STATE, CURVATURES, params, LAYERS)
    matrices = quantiser.quantise(prepared, params)
    table = describe(prepared, matrices, params)
    assert [row["name"] for row in table] == MATRICES
    for row in table:
        name, matrix = row["name"], matrices[row["name"]]
        error = STATE[name].double().numpy() - matrix.weights()
        columns, rows = CURVATURES[name].hessian_CC.numpy(), CURVATURES[name].fisher_R.numpy()
        loss = 0.5 * sum(cost * delta @ columns @ delta for cost, delta in zip(rows, error, strict=True))
        assert row["estimated_loss"] == pytest.approx(loss, rel=1e-5)
        weight = STATE[name].double().numpy()
        assert row["relative_error"] == pytest.approx(np.linalg.norm(error) / np.linalg.norm(weight))
        spacing = np.exp(np.log(matrix.scales.astype(float)).mean()) * (2 if matrix.states else 1)
        assert row["step"] == pytest.approx(spacing / np.sqrt((weight**2).mean()))
        assert (row["rows"], row["columns"], row["bits"]) == (*SHAPES[name], matrix.integer_bits)
        assert (row["method"], row["damping"]) == (("rtn", 0.0) if changes.get("method") else ("gptq", 0.01))
        assert row["entropy"] == entropy_bits(torch.from_numpy(matrix.integers))


def test_summary_counts_weights_and_methods():
    rows = [(100, 3.0, 0.25, "gptq"), (300, 5.0, -1.0, "fallback"), (50, 1.0, 0.5, "rtn"), (50, 1.0, 0.0, "gptq_lite")]
    table = [
        {"rows": count, "columns": 2, "entropy": entropy, "estimated_loss": loss, "method": method}
        for count, entropy, loss, method in rows
    ]
    assert summarise(table) == {
        "entropy_bits_per_weight": (100 * 3 + 300 * 5 + 50 + 50) / 500,
        "estimated_loss": 0.75,
        "quantised_weights": 1000,
        "gptq_matrices": 1,
        "rtn_matrices": 2,
        "fallback_matrices": 1,
    }


def test_corrections_go_where_the_estimated_loss_is_largest(quant_params):
    plain, params = quant_params(bits=3), quant_params(bits=3, repair_matrices=2)
    prepared = prepare(STATE, CURVATURES, plain, LAYERS)
    before = describe(prepared, quantiser.quantise(prepared, plain), plain)
    losses = {row["name"]: row["estimated_loss"] for row in before}
    matrices = quantiser.quantise(prepared, params)
    corrected = {name for name, matrix in matrices.items() if matrix.correction}
    assert corrected == set(sorted(losses, key=losses.get)[-2:])
    after = {row["name"]: row["estimated_loss"] for row in describe(prepared, matrices, params)}
    assert all((after[name] < losses[name]) == (name in corrected) for name in MATRICES)


def test_threads_do_not_change_a_byte(quant_params, monkeypatch):
    params, heard = quant_params(allocation="sensitivity", trellis=8), []
    results = []
    for threads in (1, 8):
        monkeypatch.setattr(os, "cpu_count", lambda threads=threads: threads)
        prepared = prepare(STATE, CURVATURES, params, LAYERS)
        results.append(quantiser.quantise(prepared, params, done=heard.append))
    assert differences(*results) == {} and list(results[1]) == MATRICES
    assert heard[:7] == MATRICES and sorted(heard[7:]) == sorted(MATRICES)


def test_fp16_tensors_are_all_the_others_in_fp16():
    fp16 = fp16_tensors(STATE, 10)
    assert list(fp16) == [name for name in SHAPES if name not in MATRICES]
    assert all(fp16[name].tobytes() == STATE[name].half().numpy().tobytes() for name in fp16)
    coarse = fp16_tensors(STATE, 2)
    assert all(len(set((np.frexp(values)[0] * 16).flatten().tolist())) <= 16 for values in coarse.values())


@given(st.lists(st.floats(-60000, 60000, width=32), min_size=1, max_size=9), st.integers(0, 10))
def test_shortened_is_the_nearest_of_all_numbers_with_so_few_bits(values, mantissa_bits):
    exponents = 2.0 ** np.arange(-14, 16)
    kept = (1 + np.arange(2**mantissa_bits) / 2**mantissa_bits) * exponents[:, None]
    candidates = np.concatenate([kept.flatten(), [0.0]])
    found = shortened(torch.tensor(values), mantissa_bits)
    assert found.dtype == torch.float16
    for value, nearest in zip(values, found.double().tolist(), strict=True):
        if 2.0**-14 <= abs(value) <= kept.max():  # below lie fp16's subnormals
            assert abs(value - nearest) == np.abs(abs(value) - candidates).min() and abs(nearest) in candidates
