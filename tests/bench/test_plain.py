"""The plain peer is what it claims: causal, uniform at the start, equal in parameters, scheduled by the book; and it learns."""

import math

import pytest
import torch
import torch.nn.functional as F

from bench.plain import WARMUP_STEPS, PlainTransformer, equal_feed_forward_width, learning_rate, plain_optimizer

SIZES = {"vocabulary_size": 64, "width": 32, "layers": 2, "heads": 4, "sequence_length": 16}


@pytest.fixture
def model() -> PlainTransformer:
    model = PlainTransformer(**SIZES, feed_forward_width=80)
    model.initialise(0)
    return model


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(64, (3, 16), generator=torch.Generator().manual_seed(0))


def count(model: PlainTransformer) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_logits_for_every_token_also_of_short_windows(model, tokens):
    assert model(tokens).shape == (3, 16, 64)
    torch.testing.assert_close(model(tokens[:, :5]), model(tokens)[:, :5])


def test_a_token_changes_no_logits_before_it_and_its_own(model, tokens):
    changed = tokens.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 64
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9], atol=1e-6, rtol=0)
    assert ((before - after)[:, 9:].abs().amax((0, 2)) > 1e-5).all()


def test_attention_is_softmax_of_scaled_products(model, tokens):
    """The first block by hand, one head and one position after the other."""
    block, x = model.blocks[0], model.tokens(tokens[:1])
    query, key, value = block.query_key_value(block.attention_norm(x)).chunk(3, dim=-1)
    mixed = torch.zeros_like(x)
    for head in range(4):
        columns = slice(8 * head, 8 * head + 8)
        for t in range(16):
            scores = query[0, t, columns] @ key[0, : t + 1, columns].T / math.sqrt(8)
            mixed[0, t, columns] = scores.softmax(-1) @ value[0, : t + 1, columns]
    x_after = x + block.output(mixed)
    expected = x_after + block.down(F.gelu(block.up(block.feed_forward_norm(x_after))))
    torch.testing.assert_close(block(x), expected)


def test_the_first_loss_is_that_of_a_uniform_guess(model, tokens):
    loss = F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(64), abs=0.1)


def test_residual_outputs_start_smaller(model):
    weights = torch.cat([block.down.weight.flatten() for block in model.blocks])
    assert weights.std().item() == pytest.approx(0.02 / math.sqrt(2 * 2), rel=0.05)
    assert model.tokens.weight.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("parameters", [2_700_000, 3_171_205, 4_000_001])
def test_parameters_are_equal_within_half_a_percent(parameters):
    sizes = {"vocabulary_size": 1024, "width": 256, "layers": 6, "sequence_length": 256}
    width = equal_feed_forward_width(parameters, **sizes)
    assert width % 8 == 0
    with torch.device("meta"):
        assert count(PlainTransformer(**sizes, heads=4, feed_forward_width=width)) == pytest.approx(parameters, rel=0.005)


def test_the_width_of_a_given_count_is_found_again(model):
    sizes = {name: size for name, size in SIZES.items() if name != "heads"}
    assert equal_feed_forward_width(count(model), **sizes) == 80


def test_learning_rate_warms_up_and_follows_a_cosine_to_a_tenth():
    rates = [learning_rate(step, 1000, 2.0) for step in range(1000)]
    assert rates[0] == pytest.approx(2.0 / WARMUP_STEPS)
    assert rates[WARMUP_STEPS - 1] == rates[WARMUP_STEPS] == 2.0
    assert rates[525] == pytest.approx(1.1, abs=1e-9)  # half-way between 50 and 1,000
    assert rates[-1] == pytest.approx(0.2, abs=1e-4)
    assert all(a >= b for a, b in zip(rates[WARMUP_STEPS:], rates[WARMUP_STEPS + 1 :], strict=False))
    assert max(learning_rate(step, 20, 2.0) for step in range(20)) == 2.0


def test_weight_decay_is_on_matrices_and_not_on_vectors(model):
    matrices, vectors = plain_optimizer(model, 1e-3).param_groups
    assert {parameter.ndim for parameter in matrices["params"]} == {2} and matrices["weight_decay"] == 0.1
    assert {parameter.ndim for parameter in vectors["params"]} == {1} and vectors["weight_decay"] == 0.0
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(model.parameters()))


def test_it_learns_a_toy_text(model, tokens):
    optimizer = plain_optimizer(model, 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5
