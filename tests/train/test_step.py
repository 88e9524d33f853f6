"""A training step against plain versions: every param changes the computation it names; runs repeat and resume bit by bit."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch

from fairway.errors import InputError
from fairway.quant.clips import steps
from fairway.quant.grids import dequantise, quantise, to_half
from fairway.train import resume
from fairway.train.groups import optimizers
from fairway.train.objective import Phase
from fairway.train.precision import precision
from fairway.train.ranks import SINGLE_PROCESS
from fairway.train.step import train_step

CPU = torch.device("cpu")
TABLE = "stream.embedding.weight"


def weights(run) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in run.objective.model.named_parameters()}


def gradients(run) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in run.objective.named_parameters() if parameter.grad is not None}


def everything(run) -> bytes:
    """All weights and their average."""
    return b"".join(tensor.numpy().tobytes() for tensor in [*weights(run).values(), *run.average.shadow.values()])


def assert_equal(ours: dict, theirs: dict, **tolerance) -> None:
    assert list(ours) == list(theirs)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance)


@pytest.mark.parametrize(("clip", "before_reduction"), [(0.1, False), (0.1, True), (0.0, False)])
def test_a_step_does_what_the_optimizers_say(begin, advance, loader, gradients_of, train_params, clip, before_reduction):
    """The second step by hand: half-way through training, clipped gradients, plain AdamW and Muon from the same state."""
    changes = {"steps": 2, "warmdown_fraction": 1.0, "weight_decay_final": 0.5, "weight_decay_taper": 1.0, "mtp_heads": 1}
    changes |= {"gradient_clip": clip, "clip_before_reduction": before_reduction}
    run = begin(moved=True, **changes)
    advance(run, 1)
    peer = copy.deepcopy(run.objective)
    muon, fused = optimizers(peer, train_params(**changes), torch.float32)
    plain = torch.optim.AdamW(fused.param_groups, foreach=False, fused=False)
    for optimizer, ours in ((muon, run.muon), (plain, run.adamw)):
        optimizer.load_state_dict(copy.deepcopy(ours.state_dict()))
        for group in optimizer.param_groups:
            group["lr"], group["weight_decay"] = group["base_lr"] * 0.5, group["base_weight_decay"] * 0.75
    for group in plain.param_groups:
        group["fused"] = False
    for group in muon.param_groups:
        group["momentum"] = 0.85 + 0.1 * 1 / 4
    found = gradients_of(peer, loader.batch(1))
    norm = math.sqrt(sum(gradient.square().sum().item() for gradient in found.values()))
    assert norm > 0.5
    for name, parameter in peer.named_parameters():
        parameter.grad = found[name] * (clip / norm if clip else 1.0)
    muon.step()
    plain.step()
    advance(run, 1)
    assert_equal(dict(run.objective.named_parameters()), dict(peer.named_parameters()), atol=1e-5, rtol=1e-4)


def test_the_loss_returned_is_the_cross_entropy_without_what_is_added(begin, advance, loader):
    run = begin(moved=True, mtp_heads=2, mtp_weight=3.0)
    windows = loader.batch(0)
    log_probabilities = run.objective.model(windows[:, :-1]).log_softmax(-1)
    surprise = -log_probabilities.gather(2, windows[:, 1:, None]).mean().item()
    assert advance(run, 1) == [pytest.approx(surprise, rel=1e-5)]


def test_passes_accumulate_to_the_gradient_of_one_pass(begin, advance):
    """Four windows of 16 tokens in one, two and four passes."""
    whole = begin(moved=True, mtp_heads=1)
    losses = advance(whole, 2)
    for passes in (2, 4):
        run, seen = begin(moved=True, mtp_heads=1, tokens_per_pass=64 // passes), []
        assert advance(run, 2, watch=lambda run, phase, seen=seen: seen.append(phase)) == pytest.approx(losses, abs=1e-6)
        assert len(seen) == 2 * passes
        assert_equal(weights(run), weights(whole), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]),
        ({"warmdown_fraction": 0.0}, [1.0] * 10),
        ({"min_lr_fraction": 0.5}, [1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.5, 0.5]),
        ({"warmdown_shape": "cosine"}, [1] * 5 + [(1 + math.cos(math.pi * k / 5)) / 2 for k in range(5)]),
        (
            {"warmdown_shape": "cosine", "min_lr_fraction": 0.2},
            [1] * 5 + [0.2 + 0.4 * (1 + math.cos(math.pi * k / 5)) for k in range(5)],
        ),
    ],
)
def test_learning_rates_of_every_step(begin, advance, changes, expected):
    run, seen = begin(**changes), []
    for _ in range(10):
        advance(run, 1)
        seen.append([group["lr"] / group["base_lr"] for group in run.muon.param_groups + run.adamw.param_groups])
    np.testing.assert_allclose(seen, np.array(expected)[:, None].repeat(len(seen[0]), 1), rtol=1e-9)


def test_learning_rates_follow_the_clock_where_it_is_ahead(begin, advance):
    run = begin(wall_clock_seconds=100.0)
    for seconds, done, factor in ((0.0, 0.0, 1.0), (75.0, 0.75, 0.5), (87.5, 0.875, 0.25)):
        run.seconds = seconds
        assert run.done == done
        advance(run, 1)
        assert {group["lr"] / group["base_lr"] for group in run.muon.param_groups} == {factor}
    run.seconds = 1000.0
    assert run.done == 1.0


def test_momentum_warms_up_by_step_and_weight_decay_ends_where_it_should(begin, advance):
    run, momentum, decay = begin(weight_decay_final=0.0, weight_decay_taper=0.5, momentum_start=0.8), [], []
    for _ in range(10):
        advance(run, 1)
        momentum.append(run.muon.param_groups[0]["momentum"])
        decay.append(
            [group["weight_decay"] / group["base_weight_decay"] for group in run.muon.param_groups + run.adamw.param_groups]
        )
    np.testing.assert_allclose(momentum, [0.8, 0.8375, 0.875, 0.9125] + [0.95] * 6)
    np.testing.assert_allclose(np.array(decay)[:, [0, -1]].T, [[1] * 6 + [0.8, 0.6, 0.4, 0.2]] * 2, atol=1e-9)


def test_grokfast_adds_the_slow_gradient(begin, advance, loader, gradients_of):
    """After each step the gradients are g + 2·slow, slow ← 0.7·slow + 0.3·g from the first g on."""
    run, plain = (begin(moved=True, grokfast_weight=weight, grokfast_decay=0.7, gradient_clip=0.0) for weight in (2.0, 0.0))
    slow = None
    for step in range(3):
        fresh = gradients_of(run.objective, loader.batch(step))
        slow = {name: fresh[name] if slow is None else 0.7 * slow[name] + 0.3 * fresh[name] for name in fresh}
        advance(run, 1)
        assert_equal(gradients(run), {name: fresh[name] + 2 * slow[name] for name in fresh}, atol=1e-5, rtol=1e-4)
    advance(plain, 3)
    assert (run.objective.model.stream.embedding.weight - plain.objective.model.stream.embedding.weight).abs().max() > 1e-3


def test_the_exported_weights_are_the_average_that_the_params_name(begin, advance):
    """Ten steps: swa takes 8 (multiplier 0.4, at most 0.5; even) and the last; ema forgets early weights faster."""
    run = {average: begin(average=average) for average in ("none", "ema", "swa")}
    shadow, trail = weights(run["none"]), []
    for step in range(1, 11):
        for one in run.values():
            advance(one, 1)
        trail.append(weights(run["none"]))
        decay = min(0.9, (1 + step) / (10 + step))
        shadow = {name: decay * shadow[name] + (1 - decay) * trail[-1][name] for name in shadow}
    mean = {name: (trail[7][name] + trail[9][name]) / 2 for name in shadow}
    assert_equal(run["none"].exported(), trail[9], atol=0, rtol=0)
    assert_equal(run["ema"].exported(), shadow, atol=1e-6, rtol=1e-5)
    assert_equal(run["swa"].exported(), mean, atol=1e-6, rtol=1e-5)
    assert_equal(run["swa"].exported(), mean, atol=1e-6, rtol=1e-5)  # asking twice counts nothing twice


def test_swa_exports_the_last_weights_where_the_clock_leaves_no_snapshot(begin, advance):
    run = begin(average="swa", wall_clock_seconds=100.0)
    advance(run, 3)
    run.seconds = 100.0
    assert run.done == 1
    assert_equal(run.exported(), weights(run), atol=0, rtol=0)


@pytest.mark.usefixtures("all_on_grids")
def test_rounding_is_seen_by_the_forward_pass_only(begin, advance, loader, gradients_of, still):
    """From multiplier 0.5 on: inside, weights as quant's own functions round them, and the gradient is taken there."""
    run = begin(moved=True, qat={"start": 0.5}, gradient_clip=0.0, warmdown_fraction=1.0, **still)
    before, inside = weights(run), []
    rounded = copy.deepcopy(run.objective)
    with torch.no_grad():
        for name, parameter in rounded.model.named_parameters():
            role = rounded.roles.get(f"model.{name}")
            if role:
                bits, clip = (5, 4.0) if role == "embedding" else (4, 4.0)
                scales = to_half(steps(parameter, "deviation", bits, clip))
                parameter.copy_(dequantise(quantise(parameter, scales, bits), scales))
    advance(run, 10, watch=lambda run, phase: inside.append(weights(run)))
    for step in range(10):
        on_grid = dict(rounded.model.named_parameters()) if step >= 5 else before
        assert_equal(inside[step], {name: on_grid[name].detach() for name in before}, atol=0, rtol=0)
    assert_equal(weights(run), before, atol=1e-20, rtol=0)
    assert_equal(gradients(run), gradients_of(rounded, loader.batch(9)), atol=1e-6, rtol=1e-5)
    assert len(rounded.roles) == 3 * 6 + 5  # six matrices a block; three tables, two projections


def zeros(state: dict[str, torch.Tensor], run) -> dict[str, float]:
    """Part of each grid matrix that is zero, and one more weight."""
    matrices = {name: state[name.removeprefix("model.")] for name in run.objective.roles}
    return {name: ((matrix == 0).sum().item() + 1) / matrix.numel() for name, matrix in matrices.items()}


@pytest.mark.usefixtures("all_on_grids")
@pytest.mark.parametrize("average", ["none", "ema", "swa"])
def test_pruning_ends_at_its_fraction(begin, advance, average):
    run = begin(moved=True, average=average, steps=8, qat={"prune_fraction": 0.6})
    advance(run, 4)
    assert max(zeros(weights(run), run).values()) < 0.1
    advance(run, 4)
    for state in (weights(run), run.exported()):
        assert all(part >= 0.6 for part in zeros(state, run).values())
    assert max(zeros(run.exported(), run).values()) < 0.7


@pytest.mark.usefixtures("all_on_grids")
def test_what_is_exported_is_pruned_also_where_the_last_step_is_not(begin, advance):
    run = begin(moved=True, steps=7, qat={"prune_fraction": 0.6})
    advance(run, 7)
    assert max(zeros(weights(run), run).values()) < 0.3
    assert all(part >= 0.6 for part in zeros(run.exported(), run).values())


def test_training_learns_a_toy_text(begin, advance):
    losses = advance(begin(steps=60), 60)
    assert losses[0] == pytest.approx(np.log(64), abs=0.1)
    assert losses[-1] < 0.3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_weights_move(begin, advance, loader, value):
    run = begin()
    advance(run, 1)
    before = everything(run)

    def poisoned(windows):
        return tuple(value * part for part in run.objective(windows))

    with pytest.raises(InputError, match=rf"the training loss is {value} at step 1; the last good checkpoint is kept"):
        train_step(run, loader.batch(1), lambda phase: poisoned)
    assert everything(run) == before and run.step == 1


CHANGES = {  # every part of a run that has a state
    "ema": {"grokfast_weight": 1.0, "mtp_heads": 1, "distill_weight": 1.0, "distill_start": 0.9, "distill_every": 2},
    "swa": {"average": "swa", "swa_start": 1.0},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(begin, advance, tmp_path, changes):
    straight, first, second = (begin(steps=12, warmdown_fraction=0.9, **changes) for _ in range(3))
    assert resume.load(tmp_path / "deep", second, SINGLE_PROCESS) is False
    losses = advance(straight, 10)
    assert advance(first, 5) == losses[:5]
    first.seconds, first.history, first.recent = 12.5, [{"step": 4, "loss": 2.0}], [1.5]
    resume.save(tmp_path / "deep", first, SINGLE_PROCESS)
    assert resume.load(tmp_path / "deep", second, SINGLE_PROCESS) is True
    assert (second.step, second.seconds, second.history, second.recent) == (5, 12.5, first.history, [1.5])
    assert advance(second, 5) == losses[5:]
    assert everything(second) == everything(straight)
    assert_equal(second.exported(), straight.exported(), atol=0, rtol=0)


def test_only_the_latest_step_stays_and_half_written_files_do_not_count(begin, advance, tmp_path):
    run = begin()
    for _ in range(2):
        advance(run, 1)
        resume.save(tmp_path, run, SINGLE_PROCESS)
    (tmp_path / ".step7.rank0of1.pt.4711.partial").write_bytes(b"half")
    assert [path.name for path in tmp_path.glob("*.pt")] == ["step2.rank0of1.pt"]
    fresh = begin()
    assert resume.load(tmp_path, fresh, SINGLE_PROCESS) and fresh.step == 2


def test_a_damaged_save_is_put_aside_and_does_not_stop_training(begin, advance, tmp_path, capsys):
    """Cut, a bit flipped anywhere, emptied, a folder in its place: afresh, or from an older save where there is one."""
    run, path = begin(), tmp_path / "step1.rank0of1.pt"
    advance(run, 1)
    resume.save(tmp_path, run, SINGLE_PROCESS)
    whole = path.read_bytes()
    sentence = f"{path}: damaged, put aside; training goes on from an older save where there is one, or afresh\n"
    flipped = [
        whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(0, len(whole), len(whole) // 9)
    ]
    for damaged in (whole[:-1], whole[: len(whole) // 2], b"", b"PK", *flipped):
        path.write_bytes(damaged)
        fresh = begin()
        if resume.load(tmp_path, fresh, SINGLE_PROCESS):  # a bit that means nothing
            assert everything(fresh) == everything(run)
        else:
            assert fresh.step == 0 and not path.exists() and capsys.readouterr().out == sentence
    for left in tmp_path.iterdir():
        left.unlink()
    path.mkdir()
    assert not resume.load(tmp_path, begin(), SINGLE_PROCESS) and capsys.readouterr().out == sentence
    (tmp_path / "step0.rank0of1.pt").write_bytes(whole)
    path.write_bytes(b"PK")
    (tmp_path / "step1.rank0of1.damaged").rmdir()
    fresh = begin()
    assert resume.load(tmp_path, fresh, SINGLE_PROCESS) and everything(fresh) == everything(run)


def test_the_key_of_a_run_depends_on_every_content_and_its_place():
    keys = {resume.key(contents) for contents in ([b"a", b"b"], [b"b", b"a"], [b"ab", b""], [b"ab"], [b"a", b"b", b""])}
    assert len(keys) == 5
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)
    assert resume.key([b"a", b"b"]) == resume.key([b"a", b"b"])


def test_phases_are_all_that_a_clock_can_bring(begin):
    """Ten steps, both starts between 0.5 and 0.6: what steps pass over in one go a clock may stop at."""
    for distill_start, between in ((0.44, Phase(True, False)), (0.49, Phase(False, True))):
        run = begin(recurrence_start=0.53, distill_start=distill_start, warmdown_fraction=1.0, distill_weight=1.0)
        assert run.phases() == [Phase(False, False), between, Phase(True, True)]
        seen = [run.phase_at(done) for done in np.linspace(0, 0.999, 1000)]
        assert run.phases() == [phase for phase, _ in itertools.groupby(seen)]
        run.seconds = 0.9 * run.train.wall_clock_seconds
        assert run.phases() == [Phase(True, True)]


def test_precision_is_what_the_params_say(train_params):
    assert precision(train_params(), CPU) == torch.float32
    assert precision(train_params(precision="bf16"), CPU) == torch.bfloat16
    assert precision(train_params(precision="auto"), CPU) in (torch.bfloat16, torch.float32)
