"""Score files: the exact bytes of a row, features that come back as they were, and a sentence for files of another kind."""

import struct

import numpy as np
import pytest

from fairway.errors import InputError
from fairway.mixture.features import Features, feature_type
from fairway.score.files import SCORE, read, read_features, read_tree, table

TOKENS = np.array([1, 300, 1, 2], np.uint16)
RERUN = "run `dvc repro` to write it again"


def rows() -> np.ndarray:
    """Targets 300, BOS and 2, spelling 5, 0 and 1 bytes."""
    token_bytes = np.zeros(400, np.uint8)
    token_bytes[[300, 2]] = 5, 1
    return table(TOKENS, token_bytes, np.array([0.5, 7.25, 2]), np.array([1.5, 3, 0.125], np.float32))


def features(mixture: str = "tree", vocabulary: int = 400) -> Features:
    """Random in every field but the token."""
    random = np.random.default_rng(0)
    rows = np.zeros(3, feature_type(mixture, vocabulary))
    for name in rows.dtype.names:
        rows[name] = random.normal(size=rows[name].shape).astype(np.float32)
    rows["token"] = TOKENS[1:]
    return rows


def save(folder) -> None:
    np.save(folder / "scores.npy", rows())
    np.save(folder / "features.npy", features())


def test_a_row_is_sixteen_little_endian_bytes():
    """token, bytes, order, neural, nats, entropy."""
    mixed = rows()
    mixed["neural"], mixed["order"] = [0.25, 8, 3], [0, 9, 7]
    expected = (300, 5, 0, 0.25, 0.5, 1.5), (1, 0, 9, 8, 7.25, 3), (2, 1, 7, 3, 2, 0.125)
    assert SCORE.itemsize == 16
    assert mixed.tobytes() == b"".join(struct.pack("<HBBfff", *row) for row in expected)


def test_without_a_mixture_the_network_scores():
    scored = rows()
    assert scored["neural"].tolist() == scored["nats"].tolist() == [0.5, 7.25, 2]
    assert not scored["order"].any()


@pytest.mark.parametrize(
    ("mixture", "more"),
    [("tree", [0.25, -0.5, 1, 2, 3, 4, 0.75]), ("tilt", [8]), ("linear", []), ("none", [])],
)
def test_a_row_of_features_is_little_endian_and_holds_what_the_mixture_reads(mixture, more):
    """token, nats, entropy; of the tree the odds at three nodes, by the network and with the cache, and the nearest cosine; of
    the tilt the nats of the match."""
    one = np.zeros(1, feature_type(mixture, 6))
    one["token"], one["nats"], one["entropy"] = 300, 0.5, 1.5
    if mixture == "tree":
        one["paths"], one["nearest"] = [[0.25, -0.5], [1, 2], [3, 4]], 0.75
    if mixture == "tilt":
        one["match_nats"] = 8
    assert one.tobytes() == struct.pack(f"<Hff{len(more)}f", 300, 0.5, 1.5, *more)


def test_round_trip_through_a_file(tmp_path):
    np.save(tmp_path / "scores.npy", rows())
    assert read(tmp_path / "scores.npy").tobytes() == rows().tobytes()
    assert (tmp_path / "scores.npy").read_bytes().endswith(rows().tobytes())


def test_features_come_back_and_are_not_loaded(tmp_path):
    save(tmp_path)
    found = read_features(tmp_path, "tree", 400)
    assert found.tobytes() == features().tobytes() and found.dtype == features().dtype
    assert isinstance(whole(found), np.memmap) and not found.flags.writeable


def whole(view: np.ndarray) -> np.ndarray:
    return view if isinstance(view, np.memmap) or view.base is None else whole(view.base)


DAMAGES = [lambda file: file[:-5], lambda file: file + b"\0", lambda file: file[:20], lambda _: b"", lambda _: b"no scores"]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["scores.npy", "features.npy"])
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path, name, damage):
    save(tmp_path)
    path = tmp_path / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=rf"{name}: not a score file \(.+\); {RERUN}"):
        read_features(tmp_path, "tree", 400)


def test_a_header_with_any_byte_changed_is_read_alike_or_refused(tmp_path):
    path = tmp_path / "scores.npy"
    np.save(path, rows())
    intact = path.read_bytes()
    refused = 0
    for place in range(len(intact) - rows().nbytes):
        for change in (1, 16, 64):
            path.write_bytes(intact[:place] + bytes([intact[place] ^ change]) + intact[place + 1 :])
            try:
                assert read(path).tobytes() == rows().tobytes()
            except InputError as error:
                assert RERUN in str(error)
                refused += 1
    assert refused > 100


@pytest.mark.parametrize("name", ["scores.npy", "features.npy"])
def test_a_missing_file_is_named(tmp_path, name):
    save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"{name}: missing; {RERUN}"):
        read_features(tmp_path, "tree", 400)


OLD = [("token", "<u2"), ("bytes", "u1"), ("nats", "<f4"), ("entropy", "<f4"), ("order", "u1")]


@pytest.mark.parametrize("other", [np.zeros(3), np.zeros(3, OLD), np.zeros((3, 2), SCORE), np.array([{}], dtype=object)])
def test_an_array_of_another_kind_is_refused_in_a_sentence(tmp_path, other):
    np.save(tmp_path / "scores.npy", other)
    with pytest.raises(InputError, match=rf"scores\.npy: .+; {RERUN}"):
        read(tmp_path / "scores.npy")


@pytest.mark.parametrize("other", [features("tilt"), features(vocabulary=600), features("none"), features()[:, None]])
def test_features_of_another_mixture_or_vocabulary_are_refused_in_a_sentence(tmp_path, other):
    save(tmp_path)
    np.save(tmp_path / "features.npy", other)
    with pytest.raises(InputError, match=rf"features\.npy: rows of type .+, expected .+\(9, 2\).+ in 1; {RERUN}"):
        read_features(tmp_path, "tree", 400)


def test_features_of_another_length_are_refused_in_a_sentence(tmp_path):
    save(tmp_path)
    np.save(tmp_path / "features.npy", features()[:2])
    with pytest.raises(InputError, match=rf"features\.npy: 2 rows, expected 3 as in scores\.npy; {RERUN}"):
        read_features(tmp_path, "tree", 400)


def test_the_tree_comes_back_and_another_is_refused_in_a_sentence(tmp_path):
    path, ranks = tmp_path / "tree.npy", np.array([2, 0, 3, 1], np.uint16)
    np.save(path, ranks)
    assert read_tree(path, 4).tolist() == ranks.tolist()
    for other, size in ((ranks, 5), (np.array([2, 0, 3, 3], np.uint16), 4), (ranks[:3], 4), (ranks[:0], 4)):
        np.save(path, other)
        with pytest.raises(InputError) as error:
            read_tree(path, size)
        assert str(error.value) == f"{path}: its {len(other)} ranks are not each of 0 to {size - 1} once; {RERUN}"
    np.save(path, ranks.astype(np.int64))
    with pytest.raises(InputError, match=rf"tree\.npy: rows of type int64 in 1 dimensions, expected uint16 in 1; {RERUN}"):
        read_tree(path, 4)
