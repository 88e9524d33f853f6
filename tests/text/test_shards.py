import hashlib
import struct
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.errors import InputError
from fairway.text import shards
from fairway.text.shards import Shards, ShardWriter, documents, read_shard, read_split

STREAM = st.lists(st.integers(0, 65535), max_size=60).map(lambda ids: np.array(ids, dtype=np.uint16))


def shard(tokens, magic=20240520, version=1, count=None):
    """A shard by the letter of the format, with struct."""
    count = len(tokens) if count is None else count
    return struct.pack("<256i", magic, version, count, *[0] * 253) + struct.pack(f"<{len(tokens)}H", *tokens)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(folder, tokens, shard_tokens, pieces=1, prefix="train"):
    with ShardWriter(folder, prefix, shard_tokens) as writer:
        for part in np.array_split(tokens, pieces):
            writer.write(part)
    return writer


def test_exact_bytes(tmp_path):
    writer = write(tmp_path, np.array([1, 2, 258, 65534, 7], dtype=np.uint16), 3, pieces=2)
    assert names(tmp_path) == ["train_000000.bin", "train_000001.bin"]
    assert (tmp_path / "train_000000.bin").read_bytes() == shard([1, 2, 258])
    assert (tmp_path / "train_000001.bin").read_bytes() == shard([65534, 7])
    assert writer.tokens == 5
    assert writer.sha256.hexdigest() == hashlib.sha256(struct.pack("<5H", 1, 2, 258, 65534, 7)).hexdigest()


@given(
    tokens=STREAM.filter(len),
    shard_tokens=st.integers(1, 70),
    pieces=st.integers(1, 5),
    cut=st.tuples(st.integers(-70, 70), st.integers(-70, 70)),
)
def test_round_trip_over_any_number_of_shards(tmp_path_factory, tokens, shard_tokens, pieces, cut):
    folder = tmp_path_factory.mktemp("shards")
    write(folder, tokens, shard_tokens, pieces)
    stream = read_split(folder, 65536)
    assert len(list(folder.iterdir())) == -(-len(tokens) // shard_tokens)
    assert len(stream) == len(tokens) and np.array_equal(stream[:], tokens)
    assert np.array_equal(stream[cut[0] : cut[1]], tokens[cut[0] : cut[1]])
    assert stream[len(tokens) // 2] == tokens[len(tokens) // 2] and stream[-1] == tokens[-1]
    assert [int(token) for token in stream] == tokens.tolist()


def test_one_shard_is_mapped_and_so_is_a_slice_within_one_of_several(tmp_path):
    tokens = np.arange(10, dtype=np.uint16)
    write(tmp_path / "one", tokens, 10)
    assert isinstance(read_split(tmp_path / "one", 10), np.memmap)
    write(tmp_path / "two", tokens, 5)
    several = read_split(tmp_path / "two", 10)
    assert isinstance(several, Shards) and several[5:9].base is not None
    with pytest.raises(ValueError, match="read-only"):
        several[5:9][0] = 1
    with pytest.raises(IndexError):
        several[10]


def test_a_failure_leaves_whole_shards_only(tmp_path):
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path, "val", 3) as writer:
        writer.write(np.zeros(5, dtype=np.uint16))
        raise KeyboardInterrupt
    assert names(tmp_path) == ["val_000000.bin"]
    assert len(read_shard(tmp_path / "val_000000.bin", 1)) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes; expected a header of 1024 bytes"),
        (shard([]), "at least one token"),
        (shard([1, 2], magic=20240521), "'magic' is 20240521, expected 20240520"),
        (shard([1, 2], version=2), "'version' is 2, expected 1"),
        (shard([1, 2], count=3), "'length' says 3 tokens, so expected 1030 bytes, found 1028"),
        (shard([1, 2], count=-1), "'length' says -1 tokens"),
        (shard([1, 2])[:-1], "expected 1028 bytes, found 1027"),
        (shard([1, 2, 99, 100]), "token 3 is 100, expected below 100, the size of the vocabulary"),
    ],
)
def test_refused_with_field_found_and_expected(tmp_path, content, words):
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_split(tmp_path, 100)
    assert str(path) in str(caught.value) and words in str(caught.value) and "\n" not in str(caught.value)


def test_a_token_outside_the_vocabulary_is_found_in_any_chunk(tmp_path):
    (tmp_path / "a.bin").write_bytes(shard([1] * 10 + [5] + [1] * 4))
    with mock.patch.object(shards, "CHUNK", 4), pytest.raises(InputError, match="token 10 is 5, expected below 5"):
        read_split(tmp_path, 5)


def test_a_folder_without_shards(tmp_path):
    with pytest.raises(InputError, match="no token shard"):
        read_split(tmp_path, 5)


@given(STREAM, st.integers(0, 3), st.integers(1, 9))
def test_documents_are_the_stream_cut_before_each_bos(tokens, bos, chunk):
    tokens = tokens % 5
    expected = []
    for token in tokens.tolist():
        if token == bos or not expected:
            expected.append([])
        expected[-1].append(token)
    with mock.patch.object(shards, "CHUNK", chunk):
        assert [document.tolist() for document in documents(tokens, bos)] == expected
