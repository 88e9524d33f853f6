"""What a parameter is, by its name and shape: role, layer, kind, start; each of a network has what its place gives it."""

import dataclasses
import subprocess
import sys

import pytest

from fairway.lm.model import GPT
from fairway.lm.parameters import FP16_ELEMENTS, initial_of, kind_of, layer_of, module_of, role_of, row_of


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("stream.embedding.weight", "embedding"),
        ("unembedding.weight", "embedding"),
        ("stream.bigram.table.weight", "embedding"),
        ("value_embedding.table.weight", "embedding"),
        ("value_embedding.projection.weight", "projection"),
        ("stream.bigram.projection.weight", "projection"),
        ("blocks.0.attention.query.weight", "attention"),
        ("blocks.11.attention.output.weight", "attention"),
        ("blocks.0.feed_forward.gate.weight", "feed_forward"),
        ("blocks.0.attention.gate_HD", "fp16"),
        ("skip_weights", "fp16"),
    ],
)
def test_names_decide_roles(name, role):
    """A table inside something called an embedding is looked up; the projection beside it multiplies."""
    assert role_of(name, (100, 64)) == role


def test_what_is_small_or_no_matrix_stays_fp16():
    name = "blocks.0.attention.query.weight"
    assert role_of(name, (64, FP16_ELEMENTS // 64)) == "fp16"
    assert role_of(name, (64, FP16_ELEMENTS // 64 + 1)) == "attention"
    assert role_of(name, (2 * FP16_ELEMENTS,)) == "fp16"
    assert role_of(name, (2, 2, FP16_ELEMENTS)) == "fp16"


@pytest.mark.parametrize(
    ("name", "layer", "module"),
    [
        ("blocks.0.attention.query.weight", 0, "block 0"),
        ("blocks.11.feed_forward.up.weight", 11, "block 11"),
        ("model.blocks.3.residual_mix", 3, "block 3"),
        ("stream.embedding.weight", None, "embedding"),
        ("stream.bigram.scale", None, "bigram"),
        ("unembedding.weight", None, "lm_head"),
        ("skip_weights", None, "skip_weights"),
        ("value_embedding.table.weight", None, "value_embedding"),
    ],
)
def test_layers_are_those_of_the_blocks(name, layer, module):
    assert layer_of(name) == layer
    assert module_of(name.removeprefix("model.")) == module


def test_every_matrix_of_a_network_has_a_role_and_those_of_blocks_a_layer(tiny):
    wide = dataclasses.replace(
        tiny,
        width=128,
        vocabulary_size=100,
        bigram_buckets=300,
        bigram_width=40,
        value_embedding_width=72,
        tied_embeddings=False,
    )
    found = {(role_of(name, tensor.shape), layer_of(name)) for name, tensor in GPT(wide).state_dict().items()}
    large = {(role, layer) for role, layer in found if role != "fp16"}
    in_blocks = {(role, layer) for role in ("attention", "feed_forward") for layer in range(3)}
    assert large == in_blocks | {("embedding", None), ("projection", None)}


def test_a_parameter_that_the_table_does_not_name_is_known_by_its_shape():
    """So an option that adds one needs no row."""
    matrix, vector = ("blocks.0.attention.new.weight", (96, 64)), ("blocks.0.attention.new_H", (8,))
    assert (kind_of(*matrix), role_of(*matrix), initial_of(*matrix, "xor")) == ("matrix", "attention", "orthogonal")
    assert (kind_of(*vector), role_of(*vector), initial_of(*vector, "xor")) == ("vector", "fp16", "built")
    assert row_of(matrix[0]).lora is None and row_of(vector[0]).text_gradient


def test_the_table_needs_no_torch():
    code = "import sys, fairway.lm.parameters; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
