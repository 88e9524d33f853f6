"""What `train` and `qat` refuse, sentence by sentence, and how a step is shared out."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.errors import InputError

GRIDS = {"bits": 4, "embedding_extra_bits": 1, "clip": 4.0, "embedding_clip": 4.0}  # those of the fixture `qat_params`
ADVICE = (
    "training assumes the grid it will be put on only if they are equal (or qat.start, entropy_weight and crown_weight are 0)"
)


def exactly(sentence: str) -> str:
    return f"^{re.escape(sentence)}$"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"tokens_per_step": 72},
            "train.tokens_per_step 72 is not a multiple of train.sequence_length 16; it is a whole number of sequences",
        ),
        (
            {"tokens_per_pass": 40},
            "train.tokens_per_pass 40 is not a multiple of train.sequence_length 16; it is a whole number of sequences",
        ),
        (
            {"sequence_length": 48},
            "train.tokens_per_step 64 is not a multiple of train.sequence_length 48; it is a whole number of sequences",
        ),
        ({"mtp_heads": 16}, "train.mtp_heads 16 looks beyond train.sequence_length 16"),
        (
            {"distill_weight": 0.1, "average": "swa"},
            "train.distill_weight needs train.average ema, whose weights are the teacher; found swa",
        ),
        (
            {"distill_weight": 0.1, "average": "none"},
            "train.distill_weight needs train.average ema, whose weights are the teacher; found none",
        ),
    ],
)
def test_params_of_training_that_do_not_fit_together(train_params, changes, sentence):
    with pytest.raises(InputError, match=exactly(sentence)):
        train_params(**changes)


def test_params_of_training_at_the_edge_fit(train_params):
    assert train_params(tokens_per_step=16, tokens_per_pass=16, mtp_heads=15).sequences_per_step == 1
    train_params(distill_weight=0.0, average="none")
    train_params(distill_weight=0.1, average="ema")


@pytest.mark.parametrize(
    ("sequences", "at_once", "world_size", "passes"),
    [
        (8, 8, 1, 1),
        (8, 4, 1, 2),
        (8, 3, 1, 4),
        (12, 5, 1, 3),
        (7, 6, 1, 7),
        (8, 100, 2, 1),
        (8, 2, 2, 2),
        (24, 2, 8, 3),
        (8, 1, 8, 1),
    ],
)
def test_passes_are_the_fewest_of_one_size_that_fit(train_params, sequences, at_once, world_size, passes):
    train = train_params(tokens_per_step=16 * sequences, tokens_per_pass=16 * at_once)
    assert train.passes(world_size) == passes


@given(sequences=st.integers(1, 60), at_once=st.integers(1, 60), world_size=st.integers(1, 16))
def test_passes_share_a_step_or_say_why_not(train_params, sequences, at_once, world_size):
    train = train_params(tokens_per_step=16 * sequences, tokens_per_pass=16 * at_once)
    if sequences % world_size:
        step = f"train.tokens_per_step {16 * sequences} is {sequences} sequences of 16"
        with pytest.raises(InputError, match=exactly(f"{step}, which {world_size} ranks cannot share equally")):
            train.passes(world_size)
    else:
        share, passes = sequences // world_size, train.passes(world_size)
        assert share % passes == 0 and share // passes <= at_once
        assert not any(share % fewer == 0 and share // fewer <= at_once for fewer in range(1, passes))


@pytest.mark.parametrize("switch", ["start", "entropy_weight", "crown_weight"])
@pytest.mark.parametrize(
    ("name", "value", "of_quant"), [("bits", 6, 4), ("clip", 4.5, 4.0), ("embedding_bits", 8, 5), ("embedding_clip", 3.0, 4.0)]
)
def test_training_must_assume_the_grid_of_quant(qat_params, quant_params, switch, name, value, of_quant):
    qat = qat_params(**{switch: 0.5, name: value})
    with pytest.raises(InputError, match=exactly(f"qat.{name} is {value} and the quant section makes it {of_quant}; {ADVICE}")):
        qat.check(quant_params(**GRIDS))


def test_extra_bits_of_quant_count(qat_params, quant_params):
    finer = quant_params(bits=4, attention_extra_bits=1, feed_forward_extra_bits=1, clip=4.0, embedding_clip=4.0)
    qat_params(start=0.5, bits=5, embedding_bits=4).check(finer)
    with pytest.raises(InputError, match=exactly(f"qat.bits is 4 and the quant section makes it 5; {ADVICE}")):
        qat_params(start=0.5, embedding_bits=4).check(finer)


@pytest.mark.parametrize("switch", ["start", "entropy_weight", "crown_weight"])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"allocation": "sensitivity"}, "quant.allocation uniform"),
        ({"target_bytes": 10**6, "per_tensor": True}, "quant.target_bytes 0, quant.per_tensor false"),
        (
            {"trellis": 8, "rotation": "hadamard", "scale_floor": True},
            "quant.trellis 0, quant.rotation none, quant.scale_floor false",
        ),
    ],
)
def test_training_only_knows_plain_grids(qat_params, quant_params, switch, changes, expected):
    sentence = (
        f"qat trains for plain grids of bits and clip only; expected {expected} (or qat.start, entropy_weight and "
        "crown_weight 0)"
    )
    quant = quant_params(**(GRIDS | changes))
    with pytest.raises(InputError, match=exactly(sentence)):
        qat_params(**{switch: 0.5}).check(quant)
    qat_params().check(quant)


def test_a_clip_found_by_a_search_is_not_compared(qat_params, quant_params):
    searched = quant_params(**(GRIDS | {"clip_rule": "mse"}))
    qat_params(start=0.5, clip=7.0, embedding_clip=3.0).check(searched)
    with pytest.raises(InputError, match=exactly(f"qat.bits is 6 and the quant section makes it 4; {ADVICE}")):
        qat_params(start=0.5, bits=6).check(searched)


def test_grids_need_not_agree_where_training_looks_at_none(qat_params, quant_params):
    qat_params(bits=8, embedding_clip=9.0, prune_fraction=0.5).check(quant_params(**GRIDS))
    qat_params(start=0.5, entropy_weight=0.1, crown_weight=1.0).check(quant_params(**GRIDS))
