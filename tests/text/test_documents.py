import gzip
import io
import json
import tracemalloc
from itertools import pairwise

import pyarrow
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from fairway.errors import InputError
from fairway.text.documents import find_files, read_documents, read_file, split_lines

TEXTS = ["first\nline two\r\n", "NUL \0, U+2581 ▁, é and 😀", " ", "last"]


def jsonl(texts):
    return "".join(json.dumps({"n": 1, "text": text}) + "\n" for text in texts).encode()


def fails(path, content=None, field="text"):
    """The one sentence that reading a file ends in."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        list(read_file(path, field))
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress], ids=["jsonl", "jsonl.gz", "jsonl.zst"])
def test_json_lines(tmp_path, compress, request):
    path = tmp_path / f"documents.{request.node.callspec.id}"
    path.write_bytes(compress(jsonl(TEXTS)))
    assert list(read_file(path, "text")) == TEXTS
    path.write_bytes(compress(jsonl(TEXTS).rstrip(b"\n")))  # the last line may lack its end
    assert list(read_file(path, "text")) == TEXTS


def test_zst_of_several_frames_and_a_skippable_one(tmp_path):
    path = tmp_path / "documents.jsonl.zst"
    skippable = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"  # RFC 8878 §3.1.2
    half = len(jsonl(TEXTS)) // 2  # in the middle of a line
    frames = zstandard.compress(jsonl(TEXTS)[:half]) + skippable + zstandard.compress(jsonl(TEXTS)[half:])
    path.write_bytes(frames)
    assert list(read_file(path, "text")) == TEXTS


def test_zst_with_the_largest_window(tmp_path):
    path = tmp_path / "documents.jsonl.zst"
    parameters = zstandard.ZstdCompressionParameters(window_log=28, compression_level=1, write_content_size=False)
    stream = io.BytesIO()
    with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(stream, closefd=False) as writer:
        writer.write(jsonl(TEXTS))
    path.write_bytes(stream.getvalue())
    assert list(read_file(path, "text")) == TEXTS


def test_txt_is_one_document_with_its_line_ends(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("é\r\n\n".encode())
    assert list(read_file(path, "text")) == ["é\r\n\n"]


@pytest.mark.parametrize(
    "kind", [pyarrow.string(), pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())]
)
def test_parquet_in_batches(tmp_path, kind):
    path, texts = tmp_path / "a.parquet", [f"document {n}" for n in range(150)]
    column = pyarrow.array(texts).cast(kind)
    parquet.write_table(pyarrow.table({"id": range(150), "body": column}), path, row_group_size=70)
    assert list(read_file(path, "body")) == texts


def test_files_come_sorted_and_once(tmp_path, monkeypatch):
    for name in ("b/2.txt", "a.txt", "b/1.txt", "c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(jsonl([name]) if name.endswith("l") else name.encode())
    monkeypatch.chdir(tmp_path)
    assert list(read_documents(["c*", "**/*.txt", "b/*"], "text")) == ["a.txt", "b/1.txt", "b/2.txt", "c.jsonl"]
    assert find_files([f"{tmp_path}/b/*"], "key") == [tmp_path / "b/1.txt", tmp_path / "b/2.txt"]


@pytest.mark.parametrize("pattern", ["nothing/*.jsonl", "", "."])
def test_a_glob_without_files_is_named(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"data\.documents: no file matches '" + pattern.replace("*", r"\*") + "'"):
        list(read_documents([pattern], "text"))
    with pytest.raises(InputError, match=r"data\.documents is empty"):
        list(read_documents([], "text"))


def test_empty_and_unknown_files(tmp_path):
    for name in ("a.jsonl", "a.jsonl.zst", "a.txt", "a.parquet"):
        assert "is empty" in fails(tmp_path / name, b"")
    assert "holds no lines" in fails(tmp_path / "a.jsonl.gz", gzip.compress(b""))
    assert "holds no lines" in fails(tmp_path / "a.jsonl.zst", zstandard.compress(b""))
    assert "expected .jsonl" in fails(tmp_path / "a.json", b"{}")


def test_not_utf8_names_the_byte(tmp_path):
    first = jsonl(["é"])
    bad = first + b'{"text": "ab\xff"}\n'
    for name, compress in (("a.jsonl", bytes), ("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.compress)):
        assert f"not UTF-8 at byte {bad.index(0xFF)} (0xff" in fails(tmp_path / name, compress(bad))
    assert "not UTF-8 at byte 2 (0xc3" in fails(tmp_path / "a.txt", b"ab\xc3")


@pytest.mark.parametrize("keep", [3, 9, -1, -5])
def test_truncated_compression(tmp_path, keep):
    content = jsonl([str(n) * 50 for n in range(100)])
    assert "truncated" in fails(tmp_path / "a.jsonl.zst", zstandard.compress(content)[:keep])
    assert "truncated" in fails(tmp_path / "a.jsonl.gz", gzip.compress(content)[:keep])


def test_damaged_compression(tmp_path):
    assert "cannot be decompressed" in fails(tmp_path / "a.jsonl.zst", jsonl(TEXTS))
    assert "cannot be decompressed" in fails(tmp_path / "a.jsonl.gz", jsonl(TEXTS))
    good = tmp_path / "good.parquet"
    parquet.write_table(pyarrow.table({"text": TEXTS}), good)
    assert "not a readable parquet" in fails(tmp_path / "a.parquet", good.read_bytes()[:-3])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"[" * 100_000, "beyond the reader's limits"),
        (b'{"text": "a", "n": ' + b"9" * 5_000 + b"}", "beyond the reader's limits"),
        (b'["text"]', "expected a JSON object with 'text', found list"),
        (b'{"body": "a", "id": 1}', "no 'text', its fields are: body, id"),
        (b'{"text": 5}', "'text' is int; expected text"),
        (b'{"text": null}', "'text' is NoneType; expected text"),
        (b'{"text": ""}', "'text' is empty"),
        (rb'{"text": "ab\ud83d"}', r"half a surrogate pair, \ud83d, at character 2"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, line, words):
    message = fails(tmp_path / "a.jsonl", jsonl(["one", "two"]) + line + b"\n" + jsonl(["four"]))
    assert "line 3: " in message and words in message


def test_bad_parquet_columns_and_rows(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["a"] * 100 + [None], "id": range(101)}), path)
    assert "row 101: 'text' is NoneType" in fails(path)
    assert "row 1: 'id' is int" in fails(path, field="id")
    assert "no column 'body', the columns are: text, id" in fails(path, field="body")
    parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), path)
    assert "holds no rows" in fails(path)


@given(st.binary(), st.lists(st.integers(0, 50)))
def test_lines_do_not_depend_on_how_the_bytes_arrive(content, cuts):
    cuts = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    chunks = [content[a:b] for a, b in pairwise(cuts)]
    lines = content.split(b"\n")
    assert list(split_lines(iter(chunks))) == (lines if lines[-1] else lines[:-1])


def test_memory_is_one_document_not_the_file(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    words = [f"{seed * 2_654_435_761 % 2**32:x} " for seed in range(1_000)]
    texts = ("".join(words[(n * k) % 1_000] for k in range(500)) for n in range(2_000))
    path.write_bytes(zstandard.compress(jsonl(texts)))
    tracemalloc.start()
    count = sum(1 for _ in read_file(path, "text"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2_000 and peak < 4_000_000
