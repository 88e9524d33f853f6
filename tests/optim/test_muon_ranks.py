"""Muon on several ranks against one rank that has the mean of their gradients: same weights, same norm, less momentum."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from fairway.optim import muon
from fairway.optim.muon import Muon
from tests.ranks import run_ranks

SHAPES = [(12, 8)] * 5 + [(6, 6)] * 2 + [(4, 10)]  # no count divides by 2 and by 3
STEPS, SAVED = 4, 2


def build(weights: list[torch.nn.Parameter]) -> Muon:
    """The last of the large matrices has a group of its own."""
    groups = [{"params": weights[:4] + weights[5:]}, {"params": weights[4:5], "lr": 0.01}]
    return Muon(groups, 0.02, 0.9, 0.1, torch.float32)


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def gradients(step: int, rank: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * step + rank)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def train(find_gradients, clip: bool, resume: bool) -> dict:
    """Weights after STEPS, norms of the gradients, and the elements of momentum that this process keeps."""
    weights, norms = parameters(), []
    optimizer = build(weights)
    for step in range(STEPS):
        for weight, gradient in zip(weights, find_gradients(step), strict=True):
            weight.grad = gradient
        if clip:
            optimizer.launch()
            norms.append(optimizer.squared_norm().sqrt())
            optimizer.scale(2 / norms[-1])
        optimizer.step()
        if resume and step + 1 == SAVED:
            state, optimizer = optimizer.state_dict(), build(weights)
            optimizer.load_state_dict(state)
    kept = sum(state["momentum"].numel() for state in optimizer.state.values())
    return {"weights": [weight.detach() for weight in weights], "norms": norms, "kept": kept}


def work(rank: int, folder: str) -> None:
    """One of three processes: three runs on as many ranks, then on two, saved for the tests to compare."""
    torch.set_num_threads(1)
    muon.STACK = 100  # one matrix of 12 × 8 a rank, so that its shape makes two stacks
    for size in range(3, max(rank, 1), -1):
        dist.init_process_group("gloo", init_method=f"file://{folder}/store{size}", rank=rank, world_size=size)
        runs = {
            "plain": train(lambda step: gradients(step, rank), clip=False, resume=False),
            "clipped": train(lambda step: gradients(step, rank), clip=True, resume=False),
            "resumed": train(lambda step: gradients(step, rank), clip=True, resume=True),
        }
        torch.save(runs, f"{folder}/{rank}of{size}.pt")
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(work, (str(folder),), 3)
    return folder


@pytest.fixture(params=[2, 3], ids=["two ranks", "three ranks"])
def ranks(request, folder) -> list[dict]:
    """What each rank ended with."""
    return [torch.load(folder / f"{rank}of{request.param}.pt") for rank in range(request.param)]


def alone(size: int, clip: bool) -> dict:
    """One rank on the mean gradient of `size`."""

    def mean(step: int) -> list[torch.Tensor]:
        return [torch.stack(parts).mean(0) for parts in zip(*(gradients(step, rank) for rank in range(size)), strict=True)]

    return train(mean, clip, resume=False)


@pytest.mark.parametrize("name", ["plain", "clipped"])
def test_ranks_end_where_one_rank_does(ranks, name):
    expected = alone(len(ranks), name == "clipped")
    for rank in ranks:
        for ours, theirs in zip(rank[name]["weights"], expected["weights"], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_all_ranks_have_the_same_bits(ranks):
    for rank in ranks[1:]:
        for name, run in rank.items():
            for ours, theirs in zip(
                run["weights"] + run["norms"], ranks[0][name]["weights"] + ranks[0][name]["norms"], strict=True
            ):
                assert torch.equal(ours, theirs)


def test_the_norm_is_that_of_the_mean_gradient_of_all_ranks(ranks):
    expected = alone(len(ranks), clip=True)["norms"]
    torch.testing.assert_close(ranks[-1]["clipped"]["norms"], expected, rtol=1e-6, atol=0)


def test_a_resumed_rank_goes_on_bitwise(ranks):
    for rank in ranks:
        for straight, resumed in zip(rank["clipped"]["weights"], rank["resumed"]["weights"], strict=True):
            assert torch.equal(straight, resumed)


def test_each_rank_keeps_its_share_of_the_momentum(ranks):
    """Stacks of 4, 1, 2 and 1 matrices, each rounded up to a multiple of the ranks."""
    counts = [(4, 12 * 8), (1, 12 * 8), (2, 6 * 6), (1, 4 * 10)]
    for rank in ranks:
        assert rank["plain"]["kept"] == sum(-(-count // len(ranks)) * size for count, size in counts)
