"""Adapting before quantisation: rates that reach every tensor of a block, the cosine, the order of the windows."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch

from fairway.errors import InputError
from fairway.train.config import PrequantTtt
from fairway.train.objective import cross_entropy
from fairway.train.prequant_ttt import adapt, batches, parameter_groups

CONFIG = PrequantTtt("holdout", epochs=2, lr=1e-3, first_block=0.3, sequences_per_step=2, max_tokens=1000)
TOKENS = np.random.default_rng(0).integers(2, 64, 16 * 5 + 8, dtype=np.uint16)  # five windows and a rest


def rate(name: str, freeze_blocks: int = 0) -> float:
    """What a tensor of the three-layer network should train at."""
    rates = [[0.3e-3, 0.65e-3, 1e-3], [0.0, 0.3e-3, 1e-3], [0.0, 0.0, 0.3e-3], [0.0, 0.0, 0.0]][freeze_blocks]
    return rates[int(name[7])] if name.startswith("blocks.") else 1e-3


@pytest.mark.parametrize("freeze_blocks", range(4))
def test_every_tensor_moves_at_the_rate_of_its_block_and_frozen_blocks_stay(tiny, shaken, freeze_blocks):
    """AdamW's first step is lr·sign(gradient), so the largest change of each tensor is its learning rate."""
    model = shaken(tiny)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    one_step = dataclasses.replace(CONFIG, epochs=1, sequences_per_step=5, freeze_blocks=freeze_blocks)
    adapt(model, TOKENS, one_step, torch.float32)
    for name, parameter in model.named_parameters():
        expected = pytest.approx(rate(name, freeze_blocks), rel=1e-2)
        assert (parameter - before[name]).abs().max().item() == expected, name


def test_groups_hold_every_parameter_once(tiny, shaken):
    model = shaken(tiny)
    inside = [id(parameter) for group in parameter_groups(model, CONFIG) for parameter in group["params"]]
    assert sorted(inside) == sorted(id(parameter) for parameter in model.parameters())
    frozen = {id(parameter) for parameter in model.blocks[0].parameters()}
    groups = parameter_groups(model, dataclasses.replace(CONFIG, freeze_blocks=1))
    assert {id(parameter) for group in groups for parameter in group["params"]} == set(inside) - frozen
    single = shaken(dataclasses.replace(tiny, layers=1, value_embedding_layers=[0], recurrence_layers=[0]))
    assert [group["base_lr"] for group in parameter_groups(single, CONFIG)] == pytest.approx([0.3e-3, 1e-3])


def test_a_loss_that_is_not_finite_stops_it_and_names_the_step(tiny, shaken):
    """A rate without measure: the first step is scored before it is taken."""
    with pytest.raises(InputError) as error:
        adapt(shaken(tiny), TOKENS, dataclasses.replace(CONFIG, lr=1e30), torch.float32)
    assert str(error.value) == "the loss of prequant_ttt is nan at step 2 of 6; lower prequant_ttt.lr"


def test_batches_cover_every_window_in_order():
    assert batches(TOKENS, 16, 2) == [(0, 2), (2, 4), (4, 5)]
    assert batches(TOKENS[: 16 * 4 + 1], 16, 2) == [(0, 2), (2, 4)]
    assert batches(TOKENS[: 16 * 4], 16, 2) == [(0, 2), (2, 3)]


def test_adapting_equals_a_plain_loop_of_adamw(tiny, shaken):
    """Two epochs of three steps; the cosine falls from 1 to 0.1, a sixth of the way a step; gradients are clipped."""
    config = dataclasses.replace(CONFIG, gradient_clip=0.5)
    model = shaken(tiny)
    peer = copy.deepcopy(model)
    told = []
    ours = adapt(model, TOKENS, config, torch.float32, lambda count, loss: told.append((count, loss)))
    optimizer = torch.optim.AdamW(
        [{"params": [parameter], "rate": rate(name)} for name, parameter in peer.named_parameters()],
        weight_decay=0.0,
        foreach=False,
    )
    losses = []
    for step in range(6):
        first = 2 * (step % 3)
        windows = [TOKENS[16 * window : 16 * window + 17] for window in range(first, min(first + 2, 5))]
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * (0.55 + 0.45 * math.cos(math.pi * step / 6))
        batch = torch.from_numpy(np.stack(windows).astype(np.int64))
        loss = cross_entropy(peer(batch[:, :-1]), batch[:, 1:])
        gradients = torch.autograd.grad(loss, list(peer.parameters()))
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        for parameter, gradient in zip(peer.parameters(), gradients, strict=True):
            parameter.grad = gradient * min(1.0, 0.5 / norm.item())
        optimizer.step()
        losses.append(loss.item())
    assert norm > 0.5
    np.testing.assert_allclose(ours, [np.mean(losses[:3]), np.mean(losses[3:])], rtol=1e-5)
    np.testing.assert_allclose([loss for _, loss in told], losses, rtol=1e-5)
    for (name, our), their in zip(model.named_parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(our, their, atol=2e-5, rtol=0, msg=name)


def test_adapting_learns_and_reads_nothing_but_its_tokens(tiny, shaken):
    """The tokens are what it may read: those beyond the last whole window leave no trace."""
    one, other = shaken(tiny), shaken(tiny)
    losses = adapt(one, TOKENS, dataclasses.replace(CONFIG, epochs=4), torch.float32)
    assert losses[-1] < losses[0]
    tail = TOKENS.copy()
    tail[16 * 5 + 1 :] = 2
    adapt(other, tail, dataclasses.replace(CONFIG, epochs=4), torch.float32)
    for our, their in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(our, their)
