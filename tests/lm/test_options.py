"""What each param of the network does: it changes the logits of the same weights, and where it is off it leaves no trace.

A property of each option's own stands beside the specification (test_model.py), which could share a misreading.
"""

import dataclasses

import pytest
import torch

from fairway.lm.model import GPT

TOKENS = torch.tensor([[5, 40, 40, 1, 7, 9, 63, 0, 1, 1, 12, 5]])


@pytest.fixture
def build(tiny, shaken):
    """The tiny network with some params changed, every weight it has in common with another network copied from there."""

    def build(source: GPT | None = None, **changes) -> GPT:
        model = shaken(dataclasses.replace(tiny, **changes), seed=1)
        if source is not None:
            own = model.state_dict()
            same = {name: tensor for name, tensor in source.state_dict().items() if name in own}
            model.load_state_dict(
                {name: tensor for name, tensor in same.items() if tensor.shape == own[name].shape}, strict=False
            )
        return model

    return build


@torch.no_grad()
def logits(model: GPT, recurrent: bool = True) -> torch.Tensor:
    return model(TOKENS, recurrent=recurrent)


@torch.no_grad()
def fill(model: GPT, **values: float) -> GPT:
    """Every parameter whose name ends so is filled with the value."""
    for ending, value in values.items():
        chosen = [parameter for name, parameter in model.named_parameters() if name.endswith(ending)]
        assert chosen
        for parameter in chosen:
            parameter.fill_(value)
    return model


def assert_same(one: GPT, other: GPT) -> None:
    torch.testing.assert_close(logits(one), logits(other), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "leaky_relu2"},
        {"activation": "swiglu"},
        {"activation": "square_glu"},
        {"leaky_slope": 0.1},
        {"rope_dims": 8},
        {"rope_base": 1000.0},
        {"rope_base_length": 0},
        {"sequence_length": 64},
        {"xsa_layers": 2},
        {"gated_attention": False},
        {"value_residual": False},
        {"value_embedding_layers": [0]},
        {"value_embedding_layers": [1, -1]},
        {"unet_skips": "none"},
        {"unet_skips": "plain"},
        {"residual_mix": False},
        {"depth_scale": False},
        {"recurrence": "none"},
        {"recurrence": "append"},
        {"recurrence_layers": [2]},
        {"recurrence_passes": 3},
        {"mod_layers": [1]},
        {"bigram_hash": "linear"},
        {"bigram_buckets": 0},
        {"smear_gate": False},
        {"tied_embeddings": False},
        {"logit_softcap": 5.0},
        {"bos": 40},
    ],
    ids=str,
)
def test_a_param_changes_the_logits_of_the_same_weights(build, changes):
    model = build()
    assert (logits(build(model, **changes)) - logits(model)).abs().max() > 1e-2


def test_more_query_heads_on_a_key_value_head_are_copies_of_it(build):
    grouped = build(kv_heads=2, value_embedding_layers=[])
    full = build(grouped, kv_heads=4, value_embedding_layers=[])
    for ours, theirs in zip(full.blocks, grouped.blocks, strict=True):
        for name in ("key", "value"):
            shared = getattr(theirs.attention, name).weight.data
            getattr(ours.attention, name).weight.data = shared.view(2, 8, 32).repeat_interleave(2, 0).reshape(32, 32)
    assert_same(full, grouped)


def test_value_residual_of_the_own_values_alone_is_none(build):
    model = build()
    without = build(model, value_residual=False)
    for block in model.blocks:
        block.attention.value_mix.data = torch.tensor([0.0, 1.0])
    assert_same(model, without)


def test_value_residual_of_the_first_values_alone_needs_no_values_of_later_layers(build):
    model = build(value_embedding_layers=[])
    for block in model.blocks:
        block.attention.value_mix.data = torch.tensor([1.0, 0.0])
    before = logits(model)
    fill(model, **{"1.attention.value.weight": 0.0, "2.attention.value.weight": 3.0})
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("scale", ["value_embedding.scale", "value_embedding_scale"])
def test_value_embeddings_of_scale_zero_are_none(build, scale):
    model = build()
    assert_same(fill(model, **{scale: 0.0}), build(model, value_embedding_layers=[]))


def test_value_embeddings_reach_the_chosen_layers_only(build):
    model = build(value_embedding_layers=[-1])
    chosen = [block.attention.value_embedding_scale is not None for block in model.blocks]
    assert chosen == [False, False, True]


def test_an_open_attention_gate_is_none_and_a_shut_one_ends_attention(build):
    model = fill(build(), gate_HD=0.0, gate_bias_H=40.0)
    assert_same(model, build(model, gated_attention=False))
    fill(model, gate_bias_H=-40.0)
    assert_same(model, fill(build(model), attention_scale=0.0))


def test_attention_gates_start_nearly_open(tiny):
    attention = GPT(tiny).blocks[0].attention
    assert attention.gate_bias_H.sigmoid().mean().item() == pytest.approx(0.982, abs=1e-3)
    assert not attention.gate_HD.any()


def test_a_gated_skip_with_an_open_gate_ignores_the_skip(build):
    model = fill(build(), skip_gates=40.0)
    assert_same(model, build(model, unet_skips="none"))


def test_a_plain_skip_of_weight_zero_is_none(build):
    model = fill(build(unet_skips="plain"), skip_weights=0.0)
    assert_same(model, build(model, unet_skips="none"))


def test_a_residual_mix_of_the_stream_alone_is_none(build):
    model = build()
    for block in model.blocks:
        block.residual_mix.data = torch.tensor([[1.0], [0.0]]).expand(2, 32).clone()
    assert_same(model, build(model, residual_mix=False))


def test_depth_scale_shrinks_what_goes_into_a_block(build):
    model = build()
    seen = []
    for block in model.blocks:
        block.feed_forward.up.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].square().mean().item()))
    logits(model)
    assert seen == pytest.approx([1, 1 / 2, 1 / 2, 1 / 3], rel=1e-4)


def test_exclusive_attention_of_no_layer_is_off(build):
    assert [[block.attention.exclusive for block in build(xsa_layers=count).blocks] for count in (0, 2)] == [
        [False, False, False],
        [False, True, True],
    ]


class Passes:
    """Which layers ran in what order, and what went in and came out."""

    def __init__(self, model: GPT):
        self.layers, self.inputs, self.outputs = [], [], []
        for layer, block in enumerate(model.blocks):
            block.register_forward_hook(lambda _, inputs, output, layer=layer: self._note(layer, inputs[0], output))
        logits(model)

    def _note(self, layer: int, given: torch.Tensor, output: torch.Tensor) -> None:
        self.layers.append(layer)
        self.inputs.append(given)
        self.outputs.append(output)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"recurrence": "none"}, [0, 1, 2]),
        ({"recurrence_passes": 3}, [0, 1, 1, 1, 2]),
        ({"recurrence": "append", "recurrence_passes": 3}, [0, 1, 2, 1, 1]),
        ({"recurrence": "append", "recurrence_layers": [-2, -1]}, [0, 1, 2, 1, 2]),
        (  # the SP8192 record
            {"layers": 11, "recurrence_layers": [4, 5], "recurrence_passes": 3},
            [0, 1, 2, 3, 4, 5, 4, 5, 4, 5, 6, 7, 8, 9, 10],
        ),
    ],
)
def test_recurrent_layers_run_in_their_published_order(build, changes, expected):
    assert Passes(build(**changes)).layers == expected


def test_appended_passes_have_no_skips(build):
    """Of 0, 1, 2 | 1, 2: the U-Net hands the output of 0 to 1, as it does without recurrence."""
    passes = Passes(build(recurrence="append", recurrence_layers=[1, 2], unet_skips="plain"))
    after = [torch.equal(passes.inputs[number], passes.outputs[number - 1]) for number in range(1, 5)]
    assert after == [False, True, True, True]


def test_inserted_passes_have_skips(build):
    """Of 0, 1 | 1, 2: the second pass takes the output of the first, added to itself; the last layer that of layer 0."""
    model = build(unet_skips="plain")
    passes = Passes(model)
    for number, skipped in ((2, 1), (3, 0)):
        handed_over = passes.inputs[number] - passes.outputs[number - 1]
        torch.testing.assert_close(handed_over, model.skip_weights[number - 2] * passes.outputs[skipped], atol=1e-4, rtol=1e-4)


def test_appended_passes_before_they_are_switched_on_are_none(build):
    model = build(recurrence="append")
    assert torch.equal(logits(model, recurrent=False), logits(build(model, recurrence="none")))


def test_a_smear_gate_that_is_shut_and_pairs_of_scale_zero_are_none(build):
    model = fill(build(), smear_gate=-100.0, **{"bigram.scale": 0.0})
    assert_same(model, build(model, smear_gate=False, bigram_buckets=0))


def test_an_untied_head_starts_at_logits_of_zero_and_takes_part(tiny, build):
    fresh = GPT(dataclasses.replace(tiny, tied_embeddings=False))
    fresh.initialise(0)
    assert not logits(fresh).any()
    model = build(tied_embeddings=False)
    model.unembedding.weight.data = model.stream.embedding.weight.data
    assert_same(model, build(model))


def test_logits_stay_within_their_cap(build):
    model = fill(build(logit_softcap=2.0), **{"stream.embedding.weight": 100.0})
    assert logits(model).abs().max() <= 2.0


def test_a_router_that_passes_all_is_none_and_one_that_passes_none_leaves_the_stream(build):
    model = fill(build(mod_layers=[0, 1, 2]), **{"router.threshold": -40.0})
    assert_same(model, build(model, mod_layers=[]))
    fill(model, **{"router.threshold": 40.0})
    assert_same(model, fill(build(model, mod_layers=[]), feed_forward_scale=0.0))
