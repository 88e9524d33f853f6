"""Two ranks, processes of their own over gloo, are one: the same weights and losses, saved and continued together.

All that needs them is done by one pair of processes; the tests look at what they left behind.
"""

import copy
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from fairway.lm.model import GPT
from fairway.train import resume
from fairway.train.config import Qat, Train
from fairway.train.loader import WindowLoader
from fairway.train.ranks import SINGLE_PROCESS, Ranks
from fairway.train.step import TrainState, schedule, train_step
from tests.ranks import run_ranks

STEPS = 4
UNEQUAL = {  # what the published code does, and more
    "mtp_heads": 1,
    "gradient_clip": 0.1,
    "weight_decay": 0.1,
}
CASES = {
    "after": UNEQUAL,
    "before": UNEQUAL | {"clip_before_reduction": True},
    "before, never clipped": UNEQUAL | {"clip_before_reduction": True, "gradient_clip": 1e6},
    "after, never clipped": UNEQUAL | {"gradient_clip": 1e6},
    "grokfast": UNEQUAL | {"grokfast_weight": 2.0, "gradient_clip": 0.0},
    "passes": UNEQUAL | {"tokens_per_pass": 16},
}


def start(model: GPT, train: Train, qat: Qat) -> TrainState:
    return TrainState.start(copy.deepcopy(model), train, qat, torch.float32)


def steps(run: TrainState, loader: WindowLoader, count: int, ranks: Ranks = SINGLE_PROCESS) -> list[float]:
    losses = {phase: run.objective.loss(phase, torch.float32, run.teacher) for phase in run.phases()}
    batches = (loader.batch(step, ranks.rank, ranks.size) for step in range(run.step, run.step + count))
    return [train_step(run, windows, losses.__getitem__, ranks) for windows in batches]


def weights(run: TrainState) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in run.objective.named_parameters()}


def state(run: TrainState) -> dict:
    return copy.deepcopy(run.state_dict())


def work(rank: int, folder: Path, model: GPT, params: dict[str, Train], qat: Qat, loader: WindowLoader) -> None:
    """What each of the two processes does; its findings go to a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    ranks = Ranks(rank, 2)
    found = {}
    for name, train in params.items():
        run = start(model, train, qat)
        losses = steps(run, loader, STEPS, ranks)
        found[name] = {"losses": losses, "weights": weights(run), "exported": run.exported(), "state": state(run)}
    found["gathered"] = ranks.gather(rank + 0.1, -float(rank))
    found["averaged"] = [torch.full((2, 3), float(rank)), torch.tensor(10.0 * rank)]
    ranks.average_(found["averaged"])
    found["resumed"] = continued(folder, lambda: start(model, params["grokfast"], qat), loader, ranks)
    torch.save(found, folder / f"found{rank}.pt")
    ranks.barrier()
    dist.destroy_process_group()


def continued(folder: Path, fresh, loader: WindowLoader, ranks: Ranks) -> dict:
    """A run saved at step 2 and taken up again, where rank 0 had also saved step 3 when it all ended."""
    saved, first, second = folder / "saved", fresh(), fresh()
    losses = steps(first, loader, 2, ranks)
    resume.save(saved, first, ranks)
    steps(first, loader, 1, ranks)
    if ranks.rank == 0:
        torch.save(first.state_dict(), saved / "step3.rank0of2.pt")
    ranks.barrier()
    loaded = resume.load(saved, second, ranks)
    step = second.step
    ranks.barrier()
    left = sorted(path.name for path in saved.iterdir())
    losses += steps(second, loader, 2, ranks)
    missing = folder / "missing"
    if ranks.rank == 0:
        shutil.copytree(saved, missing)
        (missing / "step2.rank1of2.pt").unlink()
    ranks.barrier()
    third = fresh()
    return {
        "loaded": (loaded, step),
        "left": left,
        "losses": losses,
        "state": state(second),
        "missing": (resume.load(missing, third, ranks), third.step),
    }


@pytest.fixture(scope="module")
def model(tiny, shaken) -> GPT:
    return shaken(tiny).train()


@pytest.fixture(scope="module")
def params(train_params) -> dict[str, Train]:
    return {name: train_params(**changes) for name, changes in CASES.items()}


@pytest.fixture(scope="module")
def found(tmp_path_factory, model, params, qat_params, loader) -> list[dict]:
    """The findings of both ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(work, (folder, model, params, qat_params(), loader), 2)
    return [torch.load(folder / f"found{rank}.pt") for rank in range(2)]


def assert_equal(ours: dict, theirs: dict, **tolerance) -> None:
    assert list(ours) == list(theirs)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance)


def identical(one: object, other: object) -> bool:
    """Equal to the bit, all the way down."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(identical(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(identical, one, other))
    return one == other


@pytest.mark.parametrize("case", ["after", "passes", "after, never clipped"])
def test_two_ranks_train_as_one_does_on_the_same_windows(found, model, params, qat_params, loader, case):
    run = start(model, params[case], qat_params())
    losses = steps(run, loader, STEPS)
    assert found[0][case]["losses"] == pytest.approx(losses, abs=1e-5)
    assert_equal(found[0][case]["weights"], weights(run), atol=1e-5, rtol=0)
    assert_equal(found[0][case]["exported"], run.exported(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_both_ranks_have_the_same_weights_and_losses_to_the_bit(found, case):
    for part in ("losses", "weights", "exported"):
        assert identical(found[0][case][part], found[1][case][part])


def test_clipping_before_the_reduction_clips_the_gradients_of_each_rank(found, model, params, qat_params, loader):
    """By hand on one rank: the gradients of both halves of the windows, each clipped, then their mean."""
    run = start(model, params["before"], qat_params())
    parameters = list(run.objective.parameters())
    for step in range(STEPS):
        schedule(run)
        halves = []
        for rank in range(2):
            gradients = torch.autograd.grad(run.objective(loader.batch(step, rank, 2))[0], parameters)
            norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
            assert norm > 0.2
            halves.append([gradient * 0.1 / norm for gradient in gradients])
        for parameter, one, other in zip(parameters, *halves, strict=True):
            parameter.grad = (one + other) / 2
        run.adamw.step()
        run.muon.step()
        run.step += 1
    assert_equal(found[0]["before"]["weights"], weights(run), atol=1e-5, rtol=0)


def test_where_clipping_happens_matters_only_where_it_clips(found):
    assert identical(found[0]["before, never clipped"]["weights"], found[0]["after, never clipped"]["weights"])
    clipped = (found[0][case]["weights"]["model.stream.embedding.weight"] for case in ("before", "after"))
    assert nn.functional.l1_loss(*clipped) > 1e-4


def test_each_rank_keeps_its_own_half_of_momentum_and_its_own_slow_gradients(found, model, params, qat_params):
    run = start(model, params["grokfast"], qat_params())
    states = [rank["grokfast"]["state"] for rank in found]
    assert not torch.equal(states[0]["grokfast"]["slow"][0], states[1]["grokfast"]["slow"][0])
    matrices = {parameter.shape: 0 for group in run.muon.param_groups for parameter in group["params"]}
    for group in run.muon.param_groups:
        for parameter in group["params"]:
            matrices[parameter.shape] += 1
    for one in states:
        held = {tuple(entry["momentum"].shape) for entry in one["muon"]["state"].values()}
        assert held == {(-(-count // 2), *shape) for shape, count in matrices.items()}


def test_gather_and_average(found):
    for rank in found:
        assert rank["gathered"] == [(0.1, 0.0), (1.1, -1.0)]
        assert [tensor.tolist() for tensor in rank["averaged"]] == [[[0.5] * 3] * 2, 5.0]
    single = [torch.ones(2)]
    SINGLE_PROCESS.average_(single)
    assert SINGLE_PROCESS.gather(1.0, 2) == [(1.0, 2)] and single[0].tolist() == [1.0, 1.0]


def test_ranks_continue_together_from_the_last_step_that_both_have_saved(found):
    """Rank 0 alone had step 3: both take step 2, the other goes, and step 4 has the bits of a run that nobody stopped."""
    for rank in found:
        assert rank["resumed"]["loaded"] == (True, 2)
        assert rank["resumed"]["left"] == ["step2.rank0of2.pt", "step2.rank1of2.pt"]
        assert rank["resumed"]["losses"] == rank["grokfast"]["losses"]
        assert identical(rank["resumed"]["state"], rank["grokfast"]["state"])


def test_a_step_that_one_rank_has_not_saved_is_not_used(found):
    assert [rank["resumed"]["missing"] for rank in found] == [(False, 0)] * 2


def test_without_torchruns_environment_there_is_one_rank(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks = Ranks.join()
    assert (ranks.rank, ranks.size) == (0, 1)
    ranks.leave()
    assert not dist.is_initialized()
