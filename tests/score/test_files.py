"""Score files: the exact bytes of a row, and a sentence for files of another kind."""

import struct

import numpy as np
import pytest

from fairway.errors import InputError
from fairway.score.files import SCORE, Scores, read, table


def rows() -> np.ndarray:
    """Targets 300, BOS and 2, spelling 5, 0 and 1 bytes."""
    token_bytes = np.zeros(400, np.uint8)
    token_bytes[[300, 2]] = 5, 1
    scores = Scores(np.array([0.5, 7.25, 2], np.float32), np.array([1.5, 3, 0.125], np.float32))
    return table(np.array([1, 300, 1, 2], np.uint16), token_bytes, scores)


def test_a_row_is_twelve_little_endian_bytes():
    """token, bytes, nats, entropy, order."""
    packed = [struct.pack("<HBffB", *row) for row in ((300, 5, 0.5, 1.5, 0), (1, 0, 7.25, 3, 0), (2, 1, 2, 0.125, 0))]
    assert SCORE.itemsize == 12
    assert rows().tobytes() == b"".join(packed)


def test_round_trip_through_a_file(tmp_path):
    scored = rows()
    scored["order"] = 1, 0, 7
    np.save(tmp_path / "scores.npy", scored)
    assert read(tmp_path / "scores.npy").tobytes() == scored.tobytes()
    assert (tmp_path / "scores.npy").read_bytes().endswith(scored.tobytes())


@pytest.mark.parametrize("damage", [lambda whole: whole[:-5], lambda whole: whole[:20], lambda _: b"", lambda _: b"no scores"])
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path, damage):
    path = tmp_path / "scores.npy"
    np.save(path, rows())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"scores.npy: not a score file \((?s:.+)\); run `dvc repro` to write it again"):
        read(path)


@pytest.mark.parametrize("other", [np.zeros(3), np.zeros(3, [("token", "<u2")]), np.array([{}], dtype=object)])
def test_an_array_of_another_kind_is_refused_in_a_sentence(tmp_path, other):
    np.save(tmp_path / "scores.npy", other)
    with pytest.raises(InputError, match=r"scores\.npy: .+; run `dvc repro` to write it again"):
        read(tmp_path / "scores.npy")
