"""The model section: lists of layers and their refusals, the order of passes, the base of the rotary angles."""

import dataclasses

import pytest

from fairway.errors import InputError


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"rope_dims": 2},
            "model.rope_dims is 2; expected at least 4 where model.rope_base_length scales the base, or 0",
        ),
        ({"mod_layers": [0, 1, 2, -1]}, "model.mod_layers has 4 layers, more than model.layers 3"),
        ({"value_embedding_layers": [3]}, "model.value_embedding_layers names layer 3; a stack of 3 has layers 0 to 2"),
        ({"recurrence_layers": [-4]}, "model.recurrence_layers names layer -4; a stack of 3 has layers 0 to 2"),
        ({"mod_layers": [2, -1]}, "model.mod_layers is [2, -1]; expected each layer once"),
        (
            {"recurrence_layers": []},
            "model.recurrence_layers is []; expected at least one layer, consecutive, for model.recurrence insert",
        ),
        (
            {"recurrence": "append", "recurrence_layers": [0, -1]},
            "model.recurrence_layers is [0, -1]; expected at least one layer, consecutive, for model.recurrence append",
        ),
    ],
)
def test_params_that_do_not_fit_each_other_are_refused_in_a_sentence(tiny, changes, sentence):
    with pytest.raises(InputError) as error:
        dataclasses.replace(tiny, **changes)
    assert str(error.value) == sentence


def test_layers_count_from_either_end(tiny):
    assert tiny.at([0, -1, -3, 2]) == [0, 2, 0, 2]


@pytest.mark.parametrize(
    ("changes", "once", "again", "skips"),
    [
        ({"recurrence": "none"}, [0, 1, 2], [], 1),
        ({"recurrence": "none", "unet_skips": "none"}, [0, 1, 2], [], 0),
        ({}, [0, 1, 1, 2], [], 2),
        ({"recurrence_layers": [-2, -1], "recurrence_passes": 3}, [0, 1, 2, 1, 2, 1, 2], [], 3),
        ({"recurrence": "append", "recurrence_passes": 3}, [0, 1, 2], [1, 1], 1),
    ],
    ids=str,
)
def test_the_order_of_passes_and_the_skips_it_takes(tiny, changes, once, again, skips):
    architecture = dataclasses.replace(tiny, **changes)
    assert architecture.schedule(recurrent=True) == (once, again)
    assert architecture.schedule(recurrent=False) == ([0, 1, 2], [])
    assert architecture.skips == skips


@pytest.mark.parametrize(
    ("length", "base_length", "expected"),
    [(2048, 1024, 22_082), (1024, 1024, 10_000), (512, 1024, 10_000), (2048, 0, 10_000)],
)
def test_the_rotary_base_grows_with_the_training_length_as_published(tiny, length, base_length, expected):
    """10,000 · 2^(16/14) for sequences twice the base length and 16 dimensions (#549)."""
    published = {"width": 128, "rope_dims": 16, "rope_base": 10_000.0}
    architecture = dataclasses.replace(tiny, **published, sequence_length=length, rope_base_length=base_length)
    assert round(architecture.scaled_rope_base) == expected


def test_without_rotary_dimensions_the_base_stays(tiny):
    assert dataclasses.replace(tiny, rope_dims=0).scaled_rope_base == tiny.rope_base
