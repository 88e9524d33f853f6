"""Score files: the exact bytes of a row, evidence that comes back as it was, and a sentence for files of another kind."""

import struct

import numpy as np
import pytest

from fairway.errors import InputError
from fairway.mixture.features import Features
from fairway.score.files import HINT, SCORE, hint_table, read, read_evidence, read_tree, table

TOKENS = np.array([1, 300, 1, 2], np.uint16)
RERUN = "run `dvc repro` to write it again"


def rows(**more) -> np.ndarray:
    """Targets 300, BOS and 2, spelling 5, 0 and 1 bytes."""
    token_bytes = np.zeros(400, np.uint8)
    token_bytes[[300, 2]] = 5, 1
    return table(TOKENS, token_bytes, np.array([0.5, 7.25, 2]), np.array([1.5, 3, 0.125], np.float32), **more)


def evidence() -> Features:
    random = np.random.default_rng(0)
    nats, entropy, hint_nats, nearest = random.random((4, 3)).astype(np.float32)
    paths = random.normal(size=(3, 9, 2)).astype(np.float32)
    return Features(TOKENS[1:], nats, entropy, np.array([7, 65535, 0]), hint_nats, np.array([8, 0, 255]), paths, nearest)


def save(folder, evidence: Features) -> None:
    np.save(folder / "scores.npy", table(TOKENS, np.ones(400), np.zeros(3), evidence.entropy, evidence.nats))
    np.save(folder / "hints.npy", hint_table(evidence))
    np.save(folder / "paths.npy", evidence.paths)


def test_a_row_is_sixteen_little_endian_bytes():
    """token, bytes, order, neural, nats, entropy."""
    mixed = rows(neural=np.array([0.25, 8, 3]), orders=np.array([0, 9, 7]))
    expected = (300, 5, 0, 0.25, 0.5, 1.5), (1, 0, 9, 8, 7.25, 3), (2, 1, 7, 3, 2, 0.125)
    assert SCORE.itemsize == 16
    assert mixed.tobytes() == b"".join(struct.pack("<HBBfff", *row) for row in expected)


def test_without_a_mixture_the_network_scores():
    scored = rows()
    assert scored["neural"].tolist() == scored["nats"].tolist() == [0.5, 7.25, 2]
    assert not scored["order"].any()


def test_a_row_of_hints_is_twelve_little_endian_bytes():
    """hint, order, nats, nearest."""
    said = evidence()._replace(hint_nats=[0.5, 1, 2], nearest=[0, -0.25, 1])
    expected = (7, 8, 0.5, 0), (65535, 0, 1, -0.25), (0, 255, 2, 1)
    assert HINT.itemsize == 12
    assert hint_table(said).tobytes() == b"".join(struct.pack("<HHff", *row) for row in expected)


def test_round_trip_through_a_file(tmp_path):
    np.save(tmp_path / "scores.npy", rows())
    assert read(tmp_path / "scores.npy").tobytes() == rows().tobytes()
    assert (tmp_path / "scores.npy").read_bytes().endswith(rows().tobytes())


def test_evidence_comes_back_and_is_not_loaded(tmp_path):
    save(tmp_path, evidence())
    found = read_evidence(tmp_path)
    for name, expected in evidence()._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), expected, err_msg=name)
    assert all(isinstance(whole(array), np.memmap) and not array.flags.writeable for array in found)


def whole(view: np.ndarray) -> np.ndarray:
    return view if isinstance(view, np.memmap) or view.base is None else whole(view.base)


DAMAGES = [lambda file: file[:-5], lambda file: file + b"\0", lambda file: file[:20], lambda _: b"", lambda _: b"no scores"]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["scores.npy", "hints.npy", "paths.npy"])
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path, name, damage):
    save(tmp_path, evidence())
    path = tmp_path / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=rf"{name}: not a score file \(.+\); {RERUN}"):
        read_evidence(tmp_path)


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


@pytest.mark.parametrize("name", ["scores.npy", "hints.npy", "paths.npy"])
def test_a_missing_file_is_named(tmp_path, name):
    save(tmp_path, evidence())
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"{name}: missing; {RERUN}"):
        read_evidence(tmp_path)


OLD = [("token", "<u2"), ("bytes", "u1"), ("nats", "<f4"), ("entropy", "<f4"), ("order", "u1")]


@pytest.mark.parametrize("other", [np.zeros(3), np.zeros(3, OLD), np.zeros((3, 2), SCORE), np.array([{}], dtype=object)])
def test_an_array_of_another_kind_is_refused_in_a_sentence(tmp_path, other):
    np.save(tmp_path / "scores.npy", other)
    with pytest.raises(InputError, match=rf"scores\.npy: .+; {RERUN}"):
        read(tmp_path / "scores.npy")


@pytest.mark.parametrize("other", [np.zeros((3, 9, 2)), np.zeros((3, 18), np.float32)])
def test_paths_of_another_kind_are_refused_in_a_sentence(tmp_path, other):
    save(tmp_path, evidence())
    np.save(tmp_path / "paths.npy", other)
    with pytest.raises(InputError, match=rf"paths\.npy: rows of type .+, expected float32 in 3; {RERUN}"):
        read_evidence(tmp_path)


@pytest.mark.parametrize("name", ["hints.npy", "paths.npy"])
def test_files_of_another_length_are_refused_in_a_sentence(tmp_path, name):
    save(tmp_path, evidence())
    np.save(tmp_path / name, np.load(tmp_path / name)[:2])
    with pytest.raises(InputError, match=rf"{name}: 2 rows, expected 3 as in scores\.npy; {RERUN}"):
        read_evidence(tmp_path)


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
