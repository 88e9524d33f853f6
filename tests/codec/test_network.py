"""A network out of `model.fwy`: its own weights, or a sentence where checksums are right and content is not."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
import torch

from fairway.codec import container
from fairway.codec.container import ContainerError
from fairway.codec.network import model_from
from fairway.lm.config import Architecture
from fairway.lm.model import GPT
from fairway.quant.matrix import QuantisedMatrix

ARCHITECTURE = Architecture(layers=2, width=16, heads=2, kv_heads=2, rope_dims=4, vocabulary_size=64, bos=1, sequence_length=16)
CONFIG = dataclasses.asdict(ARCHITECTURE)


def tensors(architecture: Architecture = ARCHITECTURE) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shapes = {name: tuple(tensor.shape) for name, tensor in GPT(architecture).state_dict().items()}
    return {name: generator.standard_normal(shape).astype(np.float16) for name, shape in shapes.items()}


def test_the_weights_of_the_file_are_those_of_the_network():
    given = tensors()
    model = model_from(container.write(CONFIG, {}, given))
    assert model.architecture == ARCHITECTURE and not model.training
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, torch.from_numpy(given[name]).float(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"heads": 0},
        {"heads": None},
        {"width": 10**30},
        {"width": 16384, "layers": 256},
        {"layers": 2.0},
        {"layers": True},
        {"vocabulary_size": 10**12},
        {"bigram_buckets": 2**50, "bigram_width": 2**50},
        {"rope_base": float("inf")},
        {"activation": ["star_relu"]},
        {"recurrence_layers": [[0]]},
        {"\x1b[2J": 1},
    ],
)
def test_an_architecture_that_is_none_is_a_sentence(change):
    data = container.write(CONFIG | change, {}, tensors())
    tracemalloc.start()
    try:
        with pytest.raises(ContainerError) as error:
            model_from(data, "here.fwy")
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    assert str(error.value).startswith("here.fwy: ") and str(error.value).isprintable()


def test_a_missing_key_is_named():
    with pytest.raises(ContainerError, match="vocabulary_size"):
        model_from(container.write({key: value for key, value in CONFIG.items() if key != "vocabulary_size"}, {}, tensors()))


@pytest.mark.parametrize(
    "change",
    [
        lambda given: given.pop("stream.embedding.weight"),
        lambda given: given.update({"evil\x1b": given["stream.embedding.weight"]}),
        lambda given: given.update({"stream.embedding.weight": given["stream.embedding.weight"][:, :1]}),
    ],
)
def test_other_tensors_than_the_networks_are_named(change):
    given = tensors()
    change(given)
    with pytest.raises(ContainerError, match=r"has shape .+, its network expects") as error:
        model_from(container.write(CONFIG, {}, given))
    assert str(error.value).isprintable()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_refused(value):
    given = tensors()
    given["blocks.0.attention_scale"][3] = value
    with pytest.raises(ContainerError, match=r"'blocks\.0\.attention_scale' holds what is no number"):
        model_from(container.write(CONFIG, {}, given))


def test_a_small_file_that_asks_for_gigabytes_is_refused_before_a_byte_is_reserved():
    """A matrix of zeros has three bytes of code, whatever its shape."""
    zeros = QuantisedMatrix(np.zeros((1 << 14, 1 << 9), np.int8), np.ones(1 << 14, np.float16), 6)
    data = container.write({}, {"w": zeros}, {})
    assert len(data) < 20_000
    tracemalloc.start()
    try:
        with pytest.raises(ContainerError, match=r"its header asks for 8,404,992 weights, too many for [0-9,]+ bytes"):
            model_from(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
