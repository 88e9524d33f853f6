"""Roles and layers by name, size and shape; every tensor of a network has the role that its place gives it."""

import dataclasses

import pytest
import torch

from fairway.lm.model import GPT
from fairway.quant.roles import SMALL, layer_of, role_of


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
        ("blocks.0.attention.gate_HD", "small"),
        ("skip_weights", "small"),
    ],
)
def test_names_decide_roles(name, role):
    """A table inside something called an embedding is looked up; the projection beside it multiplies."""
    assert role_of(name, torch.zeros(100, 64)) == role


def test_what_is_small_or_no_matrix_stays_small():
    name = "blocks.0.attention.query.weight"
    assert role_of(name, torch.zeros(64, SMALL // 64)) == "small"
    assert role_of(name, torch.zeros(64, SMALL // 64 + 1)) == "attention"
    assert role_of(name, torch.zeros(2 * SMALL)) == "small"
    assert role_of(name, torch.zeros(2, 2, SMALL)) == "small"


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("blocks.0.attention.query.weight", 0),
        ("blocks.11.feed_forward.up.weight", 11),
        ("stream.embedding.weight", None),
        ("unembedding.weight", None),
        ("skip_weights", None),
    ],
)
def test_layers_are_those_of_the_stack(name, layer):
    assert layer_of(name) == layer


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
    found = {(role_of(name, tensor), layer_of(name)) for name, tensor in GPT(wide).state_dict().items()}
    large = {(role, layer) for role, layer in found if role != "small"}
    in_blocks = {(role, layer) for role in ("attention", "feed_forward") for layer in range(3)}
    assert large == in_blocks | {("embedding", None), ("projection", None)}
