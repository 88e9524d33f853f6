"""The feed-forward's variants against each other, and the router against a loop: causal, trained, and worth its name."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from fairway.lm.attention import Shared, rotary_tables
from fairway.lm.feed_forward import FeedForward, Router, pack
from fairway.lm.model import Block

WIDTH = 32


def inputs(seed: int = 0, batch: int = 3, time: int = 16) -> torch.Tensor:
    return torch.randn(batch, time, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def feed_forward(tiny):
    """activation → the layer; those of all activations have the same `up` and `down`."""

    def build(activation: str, slope: float = 0.5) -> FeedForward:
        torch.manual_seed(0)
        return FeedForward(dataclasses.replace(tiny, activation=activation, leaky_slope=slope))

    return build


@pytest.fixture
def routed(feed_forward):
    """capacity, threshold → a router of random direction, in training, and the layer that it leads to."""

    def build(capacity: float = 0.5, threshold: float = 0.3) -> tuple[Router, FeedForward]:
        layer, router = feed_forward("leaky_relu2"), Router(WIDTH, capacity)
        with torch.no_grad():
            router.direction_D.normal_(0, WIDTH**-0.5)
            router.threshold.fill_(threshold)
        return router, layer

    return build


def scores(router: Router, x_BTD: torch.Tensor) -> torch.Tensor:
    """(B, T): the direction against each token at RMS 1."""
    rms_BT1 = x_BTD.square().mean(-1, keepdim=True).sqrt()
    return (x_BTD / rms_BT1 * router.direction_D).sum(-1).detach()


def test_leaky_relu2_squares_both_sides(feed_forward):
    layer, x = feed_forward("leaky_relu2"), inputs()
    up = layer.up(x)
    torch.testing.assert_close(layer(x), layer.down(torch.where(up > 0, up**2, 0.25 * up**2)))
    relu = feed_forward("leaky_relu2", slope=0.0)
    torch.testing.assert_close(relu(x), relu.down(up.relu() ** 2))


def test_star_relu_starts_as_leaky_relu2_and_scales_and_shifts_it(feed_forward):
    star, plain, x = feed_forward("star_relu"), feed_forward("leaky_relu2"), inputs()
    assert torch.equal(star(x), plain(x))
    with torch.no_grad():
        star.scale.fill_(3.0)
        star.shift.fill_(0.2)
    torch.testing.assert_close(star(x), 3 * plain(x) + 0.2 * plain.down.weight.sum(1))


def test_square_glu_of_a_gate_of_zero_is_half_of_leaky_relu2(feed_forward):
    glu, plain, x = feed_forward("square_glu"), feed_forward("leaky_relu2"), inputs()
    torch.nn.init.zeros_(glu.gate.weight)
    torch.testing.assert_close(glu(x), plain(x) / 2)


def test_swiglu_is_its_formula(feed_forward):
    layer, x = feed_forward("swiglu"), inputs()
    gate = layer.gate(x)
    torch.testing.assert_close(layer(x), layer.down(layer.up(x) * gate / (1 + torch.exp(-gate))))


rows_of_choices = st.integers(1, 9).flatmap(
    lambda time: st.lists(st.lists(st.booleans(), min_size=time, max_size=time), min_size=1, max_size=3)
)


@given(rows_of_choices, st.integers(0, 9))
def test_packing_equals_a_plain_loop(rows, room):
    index, filled = pack(torch.tensor(rows), room)
    assert index.shape == filled.shape == (len(rows), room)
    for row, chosen in enumerate(rows):
        expected = [position for position, taken in enumerate(chosen) if taken][:room]
        assert index[row][filled[row]].tolist() == expected
        assert filled[row].tolist() == [place < len(expected) for place in range(room)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("capacity", "threshold"), [(0.5, 0.3), (0.25, -0.5), (0.3, -9.0), (1.0, -9.0), (0.5, 9.0)])
def test_routing_equals_a_plain_loop(routed, training, capacity, threshold):
    """In training only 1.25 times the capacity finds room, first come, first served; otherwise all that pass."""
    router, layer = routed(capacity, threshold)
    x = inputs()
    expected = torch.zeros_like(x)
    room = min(16, math.ceil(1.25 * capacity * 16)) if training else 16
    for row, of_row in enumerate(scores(router, x)):
        for position in [t for t in range(16) if of_row[t] > threshold][:room]:
            expected[row, position] = torch.tanh(of_row[position] - threshold) * layer(x[row, position])
    torch.testing.assert_close(router.train(training)(x, layer, None), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("threshold", [0.0, -9.0])
def test_in_training_a_token_changes_no_output_before_its_own_even_in_a_full_room(routed, threshold):
    router, layer = routed(0.5, threshold)
    x = inputs(batch=1)
    y = router(x, layer, None)
    moved = 0
    for changed in range(16):
        other = x.clone()
        other[:, changed] *= -1
        difference = (router(other, layer, None) - y).abs().amax(dim=(0, 2))
        assert not difference[:changed].any()
        moved += int(difference[changed:].any())
    assert moved >= 8
    assert (y.abs().amax(-1) > 0).sum() <= 10


def pinball(of_tokens: np.ndarray, threshold: float, capacity: float) -> float:
    """Mean loss whose least value is where a part `capacity` of the scores is above."""
    excess = of_tokens - threshold
    return float(np.where(excess > 0, (1 - capacity) * excess, -capacity * excess).mean())


@pytest.mark.parametrize("capacity", [0.2, 0.5, 0.9])
def test_the_threshold_learns_by_the_pinball_loss_alone(routed, capacity):
    router, layer = routed(capacity)
    x, losses = inputs(), []
    output = router(x, layer, losses).square().sum()
    assert torch.autograd.grad(output, router.threshold, retain_graph=True, allow_unused=True) == (None,)
    of_tokens = scores(router, x).double().numpy()
    assert losses[0].item() == pytest.approx(pinball(of_tokens, 0.3, capacity), rel=1e-5)
    gradient = torch.autograd.grad(losses[0], router.threshold, retain_graph=True)[0].item()
    assert gradient == pytest.approx(capacity - (of_tokens > 0.3).mean(), abs=1e-6)
    step = 1e-7  # no score lies as near to the threshold
    slope = (pinball(of_tokens, 0.3 + step, capacity) - pinball(of_tokens, 0.3 - step, capacity)) / (2 * step)
    assert gradient == pytest.approx(slope, abs=1e-6)
    assert torch.autograd.grad(losses[0], router.direction_D, allow_unused=True) == (None,)


@pytest.mark.parametrize("capacity", [0.25, 0.5, 0.8])
def test_the_part_that_passes_comes_to_the_capacity(routed, capacity):
    router, layer = routed(capacity, threshold=2.0)
    x = inputs(batch=8, time=64)
    optimizer = torch.optim.SGD([router.threshold], lr=0.1)
    for _ in range(150):
        losses = []
        router(x, layer, losses)
        optimizer.zero_grad()
        losses[0].backward()
        optimizer.step()
    assert (scores(router, x) > router.threshold).float().mean().item() == pytest.approx(capacity, abs=0.03)


def test_the_direction_learns_from_the_output(routed):
    """Its gradient against finite differences along it, with a threshold that no score crosses meanwhile."""
    router, layer = routed(threshold=-9.0)
    router, layer, x = router.eval(), layer.requires_grad_(False), inputs(batch=1, time=8)
    with torch.no_grad():
        router.threshold.fill_(scores(router, x).min() - 0.5)

    def seen() -> torch.Tensor:
        return (router(x, layer, None) * inputs(1, batch=1, time=8)).sum()

    gradient = torch.autograd.grad(seen(), router.direction_D)[0]
    assert gradient.norm() > 1e-3
    unit, step = gradient / gradient.norm(), 1e-2
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            router.direction_D += sign * step * unit
            ends.append(seen().item())
            router.direction_D -= sign * step * unit
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(gradient.norm().item(), rel=1e-2)


def flops(block: Block, x_BTD: torch.Tensor, part: str, backward: bool) -> int:
    """Of one part of a block; nothing but its matrix products counts."""
    shared = Shared(
        x_BTD, rotary_tables(0, x_BTD.shape[1], 4, 100.0, x_BTD.device), cache=None, band=None, value_embedding_BTV=None
    )
    with FlopCounterMode(display=False) as counter:
        y = block(x_BTD, shared, pass_index=0)
        if backward:
            y.sum().backward()
    return sum(counter.get_flop_counts()[f"Block.{part}"].values())


def test_in_training_a_capacity_of_half_saves_its_part_of_the_work(tiny):
    x = inputs(time=64)
    unrouted = flops(Block(tiny, layer=1), x, "feed_forward", backward=True)
    half = flops(Block(dataclasses.replace(tiny, mod_layers=[1], mod_capacity=0.5), layer=1), x, "router", backward=True)
    assert 0.5 * unrouted <= half <= 0.65 * unrouted


def test_outside_training_the_work_follows_the_tokens_that_pass(tiny):
    torch.manual_seed(0)
    block = Block(dataclasses.replace(tiny, mod_layers=[1]), layer=1).eval()
    block.router.direction_D.data.normal_()
    x, given = inputs(batch=1), []
    block.router.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].detach()))
    for threshold in (-99.0, -1.0, 0.0, 3.0, 99.0):
        block.router.threshold.data.fill_(threshold)
        found = flops(block, x, "router", backward=False)
        passing = int((scores(block.router, given[-1]) > threshold).sum())
        assert found == passing * 2 * 2 * WIDTH * tiny.mlp_width  # up and down, a multiplication and an addition each
    assert found == 0


@pytest.mark.parametrize("training", [False, True])
def test_a_single_token_that_does_not_pass_gets_nothing(routed, training):
    router, layer = routed(threshold=99.0)
    x = inputs(batch=1, time=1).requires_grad_()
    y = router.train(training)(x, layer, None)
    assert y.shape == x.shape and not y.any()
    y.sum().backward()
    assert not router.direction_D.grad.any()


def test_in_bf16_the_same_tokens_pass_and_what_they_get_is_near(routed):
    """Scores and thresholds stay in float32: rounded, a token on the threshold would go the other way than it is scored."""
    router, layer = routed()
    x, exact_losses, losses = inputs(), [], []
    exact = router(x, layer, exact_losses)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = router(x, layer, losses)
    assert torch.equal(losses[0], exact_losses[0])
    assert torch.equal(y.abs().amax(-1) > 0, exact.abs().amax(-1) > 0)
    torch.testing.assert_close(y.float(), exact, atol=0.02, rtol=0.05)
    y.float().square().sum().backward()
    assert router.direction_D.grad.isfinite().all() and router.direction_D.grad.any()
