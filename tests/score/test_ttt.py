"""Score-first test-time training against torch's optimizers and loops written out, and two ranks against one."""

import copy
import dataclasses
import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from fairway.errors import InputError
from fairway.score import ttt
from fairway.score.streaming import Share
from tests.ranks import run_ranks
from tests.score.learning import ADAMW, MUON, TEXT, batches, changed, learn, loss, peer, weights


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"epochs": 1, "momentum": 0.0},
        {"sequences_per_step": 1},
        {"sequences_per_step": 9},
        {"gradient_clip": 0.0, "lr": 0.01},
        ADAMW,
        ADAMW | {"momentum": 0.5, "weight_decay": 2.0},
        MUON,
        MUON | {"momentum": 0.8, "gradient_clip": 0.0},
    ],
    ids=str,
)
def test_learning_is_the_optimizer_on_the_mean_loss_and_goes_on_from_chunk_to_chunk(tiny, shaken, changes):
    settings, model = changed(**changes), shaken(tiny)
    oracle, before = copy.deepcopy(model), weights(model)
    learn(model, settings)
    parameters = list(oracle.parameters())
    optimizer = peer(parameters, settings)
    for chunk in range(2):  # nothing follows the third
        for batch in batches(chunk, settings):
            oracle.zero_grad()
            loss(oracle, batch).backward()
            norm = torch.cat([parameter.grad.flatten() for parameter in parameters]).norm()
            for parameter in parameters:
                parameter.grad *= min(1.0, settings.gradient_clip / norm.item()) if settings.gradient_clip else 1.0
            optimizer.step()
    for name, tensor in weights(model).items():
        torch.testing.assert_close(tensor, oracle.get_parameter(name), atol=2e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
        assert not torch.equal(tensor, before[name]), name
    assert (model.stream.embedding.weight - before["stream.embedding.weight"]).abs().max() > 2e-3


@pytest.mark.parametrize("kind", [{}, ADAMW, MUON], ids=str)
def test_weight_decay_shrinks_weights_by_their_rate_before_each_step(tiny, shaken, kind):
    """Decoupled: with a first step each, the difference is lr · decay · weights, whatever the gradients."""
    one_step = kind | {"epochs": 1, "sequences_per_step": 4}
    plain, shrunk = shaken(tiny), shaken(tiny)
    start = weights(plain)
    learn(plain, changed(**one_step), TEXT[:56])
    settings = changed(**one_step, weight_decay=3.0)
    learn(shrunk, settings, TEXT[:56])
    for name, tensor in weights(plain).items():
        expected = tensor - settings.lr * 3.0 * start[name]
        torch.testing.assert_close(shrunk.get_parameter(name), expected, atol=1e-5, rtol=0)


@given(before=st.integers(1, 40), fresh=st.integers(1, 60), length=st.integers(1, 20))
def test_every_fresh_token_counts_once_in_windows_as_long_as_can_be(before, fresh, length):
    text = np.arange(before + fresh) + 100
    inputs_BT, targets_BT, counted_BT = (tensor.numpy() for tensor in ttt.windows(text, fresh, length))
    assert sorted(targets_BT[counted_BT]) == text[before:].tolist()
    assert (targets_BT == inputs_BT + 1).all() and (np.diff(inputs_BT, axis=1) == 1).all() and inputs_BT.min() >= 100
    assert inputs_BT.shape == (-(-fresh // length), min(length, before + fresh - 1))


def test_a_chunk_shorter_than_the_training_length_is_seen_with_the_text_before_it(tiny, shaken):
    """Four chunks of 5, one SGD step each, windows of at most 16 tokens of which the last 5 count."""
    settings = changed(chunk_tokens=5, epochs=1, momentum=0.0, gradient_clip=0.0)
    model, oracle = shaken(tiny), shaken(tiny)
    learn(model, settings, TEXT[:23])
    for last in (5, 10, 15, 20):
        oracle.zero_grad()
        loss(oracle, [(max(0, last - 16), last - 4, last)]).backward()
        with torch.no_grad():
            for parameter in oracle.parameters():
                parameter -= settings.lr * parameter.grad
    for name, tensor in weights(model).items():
        torch.testing.assert_close(tensor, oracle.get_parameter(name), atol=1e-5, rtol=1e-4)


def test_the_router_of_a_mixture_of_depths_keeps_its_threshold(tiny, shaken):
    """It has no gradient from the text; its direction has."""
    model = shaken(dataclasses.replace(tiny, mod_layers=[1]))
    before = weights(model)
    learn(model, changed(weight_decay=1.0))
    same = {name for name, tensor in weights(model).items() if torch.equal(tensor, before[name])}
    assert same == {"blocks.1.router.threshold"}


@pytest.mark.parametrize(
    ("changes", "frozen"),
    [
        ({"freeze_blocks": 2}, lambda name: name.startswith(("blocks.0.", "blocks.1."))),
        ({"freeze_blocks": 3}, lambda name: name.startswith("blocks.")),
        ({"parameters": "feed_forward"}, lambda name: ".feed_forward" not in name),
        ({"parameters": "feed_forward", "freeze_blocks": 1}, lambda name: ".feed_forward" not in name or "blocks.0." in name),
        ({"parameters": "lora", "lora_targets": ["key"]}, lambda name: ".key." not in name),
        ({"parameters": "lora", "lora_targets": ["key"], "freeze_blocks": 2}, lambda name: "2.attention.key" not in name),
    ],
    ids=lambda value: "kept" if callable(value) else str(value),  # no address: names are the same in every process
)
@pytest.mark.parametrize("kind", [{}, ADAMW, MUON], ids=str)
def test_what_does_not_learn_keeps_its_bits(tiny, shaken, changes, frozen, kind):
    model = shaken(tiny)
    before = weights(model)
    learn(model, changed(**kind, **changes, weight_decay=0.1))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == frozen(name), name
        assert parameter.requires_grad != frozen(name)


def test_a_step_of_lora_moves_a_matrix_along_its_gradient_in_the_space_of_a(tiny, shaken):
    """From B = 0: the gradient of B is s·G·Aᵀ and that of A is 0, so W moves by −lr·s²·G·AᵀA. The base stays."""
    targets = ["query", "feed_forward"]
    settings = changed(parameters="lora", lora_targets=targets, epochs=1, sequences_per_step=4, momentum=0.0, gradient_clip=0.0)
    model, oracle = shaken(tiny), shaken(tiny)
    training = learn(model, settings, TEXT[:56])
    loss(oracle, batches(0, changed(epochs=1, sequences_per_step=4))[0]).backward()
    assert len(training.names) == 3 + 6
    for name, base, a in zip(training.names, training.adapters.bases, training.adapters.a, strict=True):
        start, gradient = oracle.get_parameter(name), oracle.get_parameter(name).grad
        assert torch.equal(base, start)
        expected = start - settings.lr * 4.0**2 * gradient @ a.T @ a  # A has not moved
        torch.testing.assert_close(model.get_parameter(name), expected, atol=1e-5, rtol=1e-4)
        assert (expected - start).abs().max() > 1e-4


@pytest.mark.parametrize("kind", [{}, ADAMW, MUON, {"parameters": "lora"}, {"parameters": "feed_forward"}], ids=str)
def test_what_was_learned_is_predicted_better(tiny, shaken, kind):
    model, chunk = shaken(tiny), batches(0, changed(sequences_per_step=4))[0]
    before = loss(model, chunk).item()
    learn(model, changed(**kind, epochs=20), TEXT[:56])
    assert loss(model, chunk).item() < before - 0.05


@pytest.mark.parametrize(
    "changes", [{"freeze_blocks": 3, "parameters": "feed_forward"}, {"parameters": "lora", "lora_targets": []}]
)
def test_settings_that_leave_nothing_to_learn_are_refused(tiny, shaken, changes):
    with pytest.raises(InputError, match="leaves nothing to learn"):
        ttt.TestTimeTraining(shaken(tiny), changed(**changes), 100)


def test_the_rate_rises_from_the_first_block_that_learns_to_the_last(tiny, shaken):
    """One plain SGD step moves each tensor in proportion to its rate."""
    one_step = {"epochs": 1, "sequences_per_step": 4, "momentum": 0.0}
    moved = []
    for first_block in (1.0, 0.2):
        model = shaken(tiny)
        before = weights(model)
        learn(model, changed(**one_step, first_block=first_block), TEXT[:56])
        moved.append({name: tensor - before[name] for name, tensor in weights(model).items()})
    factor = {"blocks.0": 0.2, "blocks.1": 0.6, "blocks.2": 1.0}
    for name, full in moved[0].items():
        torch.testing.assert_close(moved[1][name], full * factor.get(name[:8], 1.0), atol=1e-6, rtol=1e-4)
    assert [ttt.block_multiplier(f"blocks.{i}.x", changed(first_block=0.2, freeze_blocks=1), 3) for i in (1, 2)] == [0.2, 1.0]


def test_the_cosine_goes_from_the_rate_to_zero_at_the_last_chunk_which_nobody_learns(tiny, shaken):
    training = ttt.TestTimeTraining(
        shaken(tiny), changed(schedule="cosine", chunk_tokens=10, epochs=1), 95
    )  # ten chunks, the last of 5
    rates = []
    for start in range(0, 90, 10):
        rates.append(training.rate())
        training.learn(TEXT[start : start + 11], np.zeros(10, np.float32))
        assert training.optimizer.param_groups[0]["lr"] == rates[-1]
        if start == 50:
            training.restart()  # the schedule is the whole text's
    assert rates == pytest.approx([0.05 * (1 + math.cos(math.pi * chunk / 9)) / 2 for chunk in range(9)])
    assert training.rate() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("nats", "epochs", "expected"), [(2.2, 3, 4), (2.1, 3, 3), (1.8, 3, 3), (1.7, 3, 2), (1.7, 1, 1)])
def test_adaptive_epochs_are_by_the_nats_of_the_chunk(tiny, shaken, monkeypatch, nats, epochs, expected):
    steps = []
    monkeypatch.setattr(ttt.TestTimeTraining, "_step", lambda self, *batch: steps.append(len(batch[0])))
    learn(shaken(tiny), changed(adaptive_epochs=True, epochs=epochs), TEXT[:56], nats)
    assert steps == [3, 1] * expected
    steps.clear()
    learn(shaken(tiny), changed(epochs=epochs), TEXT[:56], nats)
    assert steps == [3, 1] * epochs


@pytest.mark.parametrize("kind", [{}, ADAMW, MUON | {"momentum": 0.5}, {"parameters": "lora"}], ids=str)
def test_a_restart_makes_the_second_document_as_if_it_were_the_first(tiny, shaken, kind):
    settings = changed(**kind, reset="document", chunk_tokens=10)
    model, fresh = shaken(tiny), shaken(tiny)
    logits = model(torch.arange(20)[None])
    training = learn(model, settings, TEXT[:60])
    assert training.reset_documents and not torch.equal(model(torch.arange(20)[None]), logits)
    training.restart()
    assert torch.equal(model(torch.arange(20)[None]), logits)
    second = ttt.TestTimeTraining(fresh, settings, 60)
    for start in (70, 80):
        for each in (training, second):
            each.learn(TEXT[start : start + 11], np.zeros(10, np.float32))
    for name, tensor in weights(model).items():
        assert torch.equal(tensor, fresh.get_parameter(name)), name


DIFFERENT = [
    {"optimizer": "muon"},
    {"optimizer": "adamw"},
    {"parameters": "feed_forward"},
    {"parameters": "lora"},
    {"freeze_blocks": 1},
    {"first_block": 0.5},
    {"chunk_tokens": 27},
    {"epochs": 3},
    {"adaptive_epochs": True},
    {"sequences_per_step": 2},
    {"lr": 0.04},
    {"schedule": "cosine"},
    {"momentum": 0.5},
    {"weight_decay": 0.5},
    {"gradient_clip": 0.1},
]
LORA_DIFFERENT = [{"lora_rank": 3}, {"lora_alpha": 4.0}, {"lora_targets": ["query", "head"]}, {"freeze_blocks": 1}]


@pytest.fixture(scope="module")
def logits_after(tiny, shaken):
    """Settings → what the network says after it has learned; without changes, it learns once."""

    @functools.cache
    def learned(settings: str) -> torch.Tensor:
        model = shaken(tiny)
        learn(model, changed(**json.loads(settings)), nats=3.0)
        return model(torch.arange(20)[None])

    return lambda **settings: learned(json.dumps(settings))


@pytest.mark.parametrize(
    ("base", "changes"),
    [({}, changes) for changes in DIFFERENT] + [({"parameters": "lora"}, c) for c in LORA_DIFFERENT],
    ids=str,
)
def test_each_setting_changes_what_is_learned(logits_after, base, changes):
    assert (logits_after(**base) - logits_after(**base | changes)).abs().max() > 1e-4


def test_learning_twice_gives_the_same_bits(tiny, shaken):
    one, two = shaken(tiny), shaken(tiny)
    for model in (one, two):
        learn(model, changed(**ADAMW))
    assert all(torch.equal(tensor, two.get_parameter(name)) for name, tensor in weights(one).items())


CASES = {
    "sgd": changed(),  # steps of three windows and of one: ranks have 2 and 1, then 1 and none
    "adamw, clipped": changed(**ADAMW, gradient_clip=0.01, weight_decay=0.1),
    "muon": changed(**MUON),
    "lora": changed(parameters="lora", chunk_tokens=5),
}


def work(rank: int, folder: Path, model) -> None:
    """What each of two processes learns; it goes to a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)

    def average_(tensors: list[torch.Tensor]) -> None:
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= 2

    found = {}
    for name, settings in CASES.items():
        found[name] = copy.deepcopy(model)
        learn(found[name], settings, ranks=Share(rank, 2, average_))
    torch.save({name: weights(each) for name, each in found.items()}, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory, tiny, shaken) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(work, (folder, shaken(tiny)), 2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_learn_as_one_does(two_ranks, tiny, shaken, case):
    alone = shaken(tiny)
    learn(alone, CASES[case])
    for name, tensor in weights(alone).items():
        torch.testing.assert_close(two_ranks[0][case][name], tensor, atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
        assert torch.equal(two_ranks[0][case][name], two_ranks[1][case][name]), name
