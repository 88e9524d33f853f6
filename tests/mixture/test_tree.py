"""The tree over the vocabulary: its leaves against the definition and an SVD, its paths against sums over the leaves."""

import math

import numpy as np
import pytest
import torch

from fairway.mixture.tree import FLOOR, depth, leaf_ranks
from fairway.score.features import path_log_odds

SIZES = [2, 3, 7, 64, 260, 1000]


def nodes(vocabulary: int) -> list[tuple[int, int]]:
    """All ranges of leaves that are split."""
    found = [(0, vocabulary)]
    for lo, hi in found:
        found += [half for half in ((lo, (lo + hi) // 2), ((lo + hi) // 2, hi)) if half[1] - half[0] > 1]
    return found


def path(rank: int, vocabulary: int) -> list[tuple[int, int]]:
    return [(lo, hi) for lo, hi in nodes(vocabulary) if lo <= rank < hi]


def random_table(vocabulary: int, width: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(vocabulary, width))


@pytest.mark.parametrize("vocabulary", SIZES)
def test_the_ranks_are_a_permutation_and_the_same_bytes_each_time(vocabulary):
    table = random_table(vocabulary).astype(np.float32)
    ranks = leaf_ranks(table)
    assert ranks.dtype == np.uint16 and sorted(ranks) == list(range(vocabulary))
    assert leaf_ranks(table.copy()).tobytes() == ranks.tobytes()


def test_rows_that_are_all_alike_stay_in_their_order():
    assert (leaf_ranks(np.ones((21, 4))) == np.arange(21)).all()


@pytest.mark.parametrize("vocabulary", SIZES[1:])
def test_tokens_that_change_their_numbers_keep_their_places(vocabulary):
    table, moved = random_table(vocabulary), np.random.default_rng(1).permutation(vocabulary)
    assert (leaf_ranks(table[moved]) == leaf_ranks(table)[moved]).all()


def test_clusters_end_up_in_different_halves_and_quarters():
    random = np.random.default_rng(2)
    cluster = random.permutation(np.arange(64) % 4)
    centres = np.array([[-9.0, 0, 3], [-9, 0, -3], [9, 3, 0], [9, -3, 0]]) @ np.linalg.qr(random.normal(size=(3, 3)))[0]
    quarter = leaf_ranks(centres[cluster] + random.normal(size=(64, 3)) * 0.3) // 16
    assert all(len(set(quarter[cluster == k])) == 1 for k in range(4))
    assert quarter[cluster == 0][0] // 2 == quarter[cluster == 1][0] // 2 != quarter[cluster == 2][0] // 2


def test_the_root_is_split_along_the_first_principal_component():
    """However far off the origin the rows are, and where the longest of them points elsewhere."""
    table = random_table(51, 5) * [4, 2, 1, 1, 1]
    table[7] = [0, 12, 0, 0, 0]
    table = table @ np.linalg.qr(random_table(5, 5))[0] + 100
    centred = table - table.mean(0)
    projections = centred @ np.linalg.svd(centred)[2][0]
    lowest, left = set(np.argsort(projections)[:25].tolist()), set(np.flatnonzero(leaf_ranks(table) < 25).tolist())
    highest = set(np.argsort(-projections)[:25].tolist())
    assert left in (lowest, highest)


def test_every_node_is_an_interval_of_a_table_of_one_column():
    values = random_table(37, 1)
    leaves, place = np.argsort(leaf_ranks(values)), np.argsort(np.argsort(values[:, 0]))
    for lo, hi in nodes(37):
        assert np.ptp(place[leaves[lo:hi]]) == hi - lo - 1


@pytest.mark.parametrize("vocabulary", [*SIZES, 63, 65, 1024, 1025])
def test_depth_is_the_longest_path_and_every_node_has_a_name_of_its_own(vocabulary):
    lengths = np.zeros(vocabulary, int)
    for lo, hi in nodes(vocabulary):
        lengths[lo:hi] += 1
    assert depth(vocabulary) == lengths.max() <= lengths.min() + 1
    assert sorted((lo + hi) // 2 for lo, hi in nodes(vocabulary)) == list(range(1, vocabulary))


def distributions(vocabulary: int, dtype=torch.float64) -> torch.Tensor:
    """(12, V): sharp and flat ones, with probabilities of 1e-20 and of zero."""
    generator = torch.Generator().manual_seed(3)
    scales = torch.tensor([0.1, 1.0, 3.0, 8.0]).repeat(3)[:, None]
    probabilities = (torch.randn(12, vocabulary, generator=generator, dtype=torch.float64) * scales).softmax(1)
    chance = torch.rand(12, vocabulary, generator=generator)
    chance[:4] = 1.0
    return probabilities.masked_fill(chance < 0.2, 1e-20).masked_fill(chance < 0.1, 0.0).to(dtype)


@pytest.mark.parametrize("vocabulary", [2, 3, 21, 64, 260])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_odds_are_those_of_sums_over_leaves(vocabulary, dtype):
    probabilities = distributions(vocabulary, dtype)
    leaves = np.random.default_rng(4).permutation(vocabulary)
    targets = np.random.default_rng(5).integers(0, vocabulary, 12)
    ours = path_log_odds(probabilities, torch.tensor(targets), torch.tensor(leaves))
    assert ours.dtype == torch.float32 and ours.shape == (12, depth(vocabulary))
    for row, target in enumerate(targets):
        on_the_way = path(np.flatnonzero(leaves == target)[0], vocabulary)
        assert (ours[row, len(on_the_way) :] == 0).all()
        for level, (lo, hi) in enumerate(on_the_way):
            half = (lo + hi) // 2
            left, right = (math.fsum(probabilities[row, leaves[a:b]].tolist()) for a, b in ((lo, half), (half, hi)))
            expected = math.log(max(right, FLOOR)) - math.log(max(left, FLOOR))
            certain = min(left, right) > 1e-8  # a float64 sum up to 1 has an error of 1e-16
            assert float(ours[row, level]) == pytest.approx(expected, abs=2e-6 if certain else 1e-2)


def test_a_node_of_hardly_any_probability_has_no_opinion():
    """Running sums leave nothing but their rounding of it."""
    probabilities = torch.full((1, 8), 0.1).double()
    probabilities[0, 4:] = torch.tensor([1e-20, 3e-17, 1e-16, 0.0])
    probabilities[0, :4] += (1 - probabilities.sum()) / 4
    root, *below = path_log_odds(probabilities, torch.tensor([6]), torch.arange(8))[0].tolist()
    assert root < -20 and below == [0, 0]


@pytest.mark.parametrize("vocabulary", [2, 3, 21, 64, 260])
def test_the_product_along_a_path_is_the_probability_of_the_target(vocabulary):
    probabilities, leaves = (
        distributions(vocabulary)[:4],
        torch.randperm(vocabulary, generator=torch.Generator().manual_seed(6)),
    )
    for target in range(vocabulary):
        rank = leaves.tolist().index(target)
        odds = path_log_odds(probabilities, torch.full((4,), target), leaves).double()
        signs = [1 if rank >= (lo + hi) // 2 else -1 for lo, hi in path(rank, vocabulary)]
        product = torch.sigmoid(odds[:, : len(signs)] * torch.tensor(signs)).prod(1)
        torch.testing.assert_close(product, probabilities[:, target], rtol=1e-5, atol=1e-9)
