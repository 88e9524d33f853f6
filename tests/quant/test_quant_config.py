"""Settings of `quant` that contradict each other; bits and clips by role and layer."""

import re
from pathlib import Path

import pytest

from fairway.errors import InputError
from fairway.params import parse, read_yaml
from fairway.quant.config import Quant

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
STEPS_BY_ROW = (
    "quant.allocation sensitivity chooses every row's step itself; expected quant.clip_rule deviation, "
    "quant.per_tensor false and quant.scale_floor false, or quant.allocation uniform"
)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"method": "gptq_lite", "clip_rule": "deviation"},
            "quant.method gptq_lite searches for clips; expected quant.allocation uniform and quant.clip_rule percentile_row, "
            "percentile_matrix or mse, found deviation",
        ),
        (
            {"method": "gptq_lite", "clip_rule": "maximum"},
            "quant.method gptq_lite searches for clips; expected quant.allocation uniform and quant.clip_rule percentile_row, "
            "percentile_matrix or mse, found maximum",
        ),
        ({"allocation": "sensitivity", "clip_rule": "mse"}, STEPS_BY_ROW),
        ({"allocation": "sensitivity", "per_tensor": True}, STEPS_BY_ROW),
        ({"allocation": "sensitivity", "scale_floor": True}, STEPS_BY_ROW),
        (
            {"trellis": 8, "prune_ones": 0.1},
            "quant.prune_ones would derail the trellis of the weights after it; expected quant.trellis 0",
        ),
        (
            {"rotation": "hadamard", "prune_fraction": 0.1},
            "quant.rotation would fill the zeros of quant.prune_fraction again; expected quant.rotation none",
        ),
        (
            {"attention_extra_bits": 3},
            "quant.bits 6 with attention_extra_bits and finer_bits gives 9 bits; expected 2 to 8",
        ),
        (
            {"bits": 3, "feed_forward_extra_bits": -2},
            "quant.bits 3 with feed_forward_extra_bits and finer_bits gives 1 bits; expected 2 to 8",
        ),
        ({"embedding_extra_bits": 3}, "quant.bits 6 with embedding_extra_bits and finer_bits gives 9 bits; expected 2 to 8"),
        (
            {"finer_layers": [0], "finer_bits": 3},
            "quant.bits 6 with attention_extra_bits and finer_bits gives 9 bits; expected 2 to 8",
        ),
        (
            {"attention_extra_bits": -1, "finer_layers": [0], "finer_bits": 3},
            "quant.bits 6 with feed_forward_extra_bits and finer_bits gives 9 bits; expected 2 to 8",
        ),
    ],
)
def test_settings_that_contradict_each_other(quant_params, changes, sentence):
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        quant_params(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "gptq_lite", "clip_rule": "percentile_matrix"},
        {"method": "rtn", "clip_rule": "mse", "per_tensor": True, "scale_floor": True},
        {"allocation": "sensitivity", "bits": 8, "attention_extra_bits": 6, "embedding_extra_bits": -6},  # steps, not integers
        {"finer_layers": [0], "finer_bits": 2, "embedding_extra_bits": 2},
        {"finer_layers": [], "finer_bits": 6},
        {"bits": 2, "finer_layers": [0], "finer_bits": 6},
        {"trellis": 8, "prune_fraction": 0.5},
        {"trellis": 0, "prune_ones": 0.5, "rotation": "hadamard"},
    ],
)
def test_settings_at_the_edge_fit(quant_params, changes):
    quant_params(**changes)


def test_bits_are_those_of_the_section_the_role_and_the_layer(quant_params):
    params = quant_params(
        bits=5, attention_extra_bits=1, feed_forward_extra_bits=-1, embedding_extra_bits=3, finer_layers=[0, -1], finer_bits=2
    )
    roles = ("attention", "feed_forward", "embedding", "projection")
    assert [params.bits_of(role, None, 4) for role in roles] == [6, 4, 8, 5]
    assert [params.bits_of("attention", layer, 4) for layer in range(4)] == [8, 6, 6, 8]
    assert [params.bits_of("feed_forward", layer, 2) for layer in range(2)] == [6, 6]


def test_clips_are_those_of_embeddings_and_of_the_rest(quant_params):
    params = quant_params(clip=7.0, embedding_clip=3.0)
    roles = ("embedding", "attention", "feed_forward", "projection")
    assert [params.clip_of(role) for role in roles] == [3.0, 7.0, 7.0, 7.0]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("bits", 9, "a whole number at least 2 and at most 8"),
        ("method", "obq", "one of gptq, gptq_lite, rtn"),
        ("trellis", 5, "one of 0, 4, 8"),
        ("prune_fraction", 1.0, "a number at least 0 and below 1"),
        ("damping", 0.0, "a number above 0 and at most 1"),
        ("finer_layers", 3, "a list of whole numbers"),
    ],
)
def test_a_value_out_of_range_names_the_key(key, value, expected):
    with pytest.raises(InputError) as error:
        parse(read_yaml(PARAMS)["quant"] | {key: value}, "quant", Quant)
    assert str(error.value) == f"params: 'quant.{key}' is {value!r}; expected {expected}"
