"""What `model` refuses, sentence by sentence."""

import dataclasses
import re

import pytest

from fairway.errors import InputError


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"width": 34}, "model.width 34 is not divisible by model.heads 4"),
        ({"kv_heads": 3}, "model.heads 4 is not divisible by model.kv_heads 3"),
        ({"kv_heads": 8}, "model.heads 4 is not divisible by model.kv_heads 8"),
        ({"rope_dims": 10}, "model.rope_dims 10 exceeds the width of a head, 8"),
        (
            {"rope_dims": 2, "rope_base_length": 8},
            "model.rope_dims is 2; expected at least 4 where model.rope_base_length scales the base, or 0",
        ),
        ({"xsa_layers": 4}, "model.xsa_layers 4 exceeds model.layers 3"),
        ({"bigram_buckets": 1}, "model.bigram_buckets is 1; expected 0 (off) or at least 2, one of them for the start"),
        (
            {"value_embedding_layers": [0, 1, 2, 0]},
            "model.value_embedding_layers is [0, 1, 2, 0]; expected each layer once",
        ),
        ({"value_embedding_layers": [2, -1]}, "model.value_embedding_layers is [2, -1]; expected each layer once"),
        ({"mod_layers": [1, 1]}, "model.mod_layers is [1, 1]; expected each layer once"),
        ({"mod_layers": [3]}, "model.mod_layers is [3]; a stack of 3 has layers 0 to 2"),
        ({"mod_layers": [-4]}, "model.mod_layers is [-4]; a stack of 3 has layers 0 to 2"),
        (
            {"recurrence": "append", "recurrence_layers": [1, 3]},
            "model.recurrence_layers is [1, 3]; a stack of 3 has layers 0 to 2",
        ),
        ({"recurrence_layers": [1, -2]}, "model.recurrence_layers is [1, -2]; expected each layer once"),
        (
            {"recurrence": "insert", "recurrence_layers": [0, 2]},
            "model.recurrence_layers is [0, 2]; expected at least one layer, consecutive, for model.recurrence insert",
        ),
        (
            {"recurrence": "append", "recurrence_layers": [2, 1]},
            "model.recurrence_layers is [2, 1]; expected at least one layer, consecutive, for model.recurrence append",
        ),
        (
            {"recurrence": "append", "recurrence_layers": [-1, 0]},
            "model.recurrence_layers is [-1, 0]; expected at least one layer, consecutive, for model.recurrence append",
        ),
        (
            {"recurrence": "append", "recurrence_layers": []},
            "model.recurrence_layers is []; expected at least one layer, consecutive, for model.recurrence append",
        ),
    ],
)
def test_params_of_the_network_that_do_not_fit_together(tiny, changes, sentence):
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        dataclasses.replace(tiny, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"heads": 1, "kv_heads": 1, "rope_dims": 32},
        {"kv_heads": 4, "rope_dims": 8},
        {"rope_dims": 0, "rope_base_length": 8},
        {"rope_dims": 2, "rope_base_length": 0},
        {"xsa_layers": 3, "bigram_buckets": 2},
        {"bigram_buckets": 0},
        {"value_embedding_layers": [-3, 1, 2], "mod_layers": [2, 0, 1]},
        {"recurrence": "append", "recurrence_layers": [-3, 1, -1]},
        {"recurrence": "none", "recurrence_layers": []},
    ],
)
def test_params_at_the_edge_fit(tiny, changes):
    dataclasses.replace(tiny, **changes)


def test_layers_count_from_the_first(tiny):
    assert tiny.at([0, -1, -3, 2]) == [0, 2, 0, 2]


def test_recurrent_layers_beyond_the_stack_do_not_matter_where_nothing_recurs(tiny):
    assert dataclasses.replace(tiny, recurrence="none", recurrence_layers=[2, 3]).schedule(recurrent=True) == ([0, 1, 2], [])
