"""The text codec's benchmark with a stand-in submission that speaks zlib: its sizes are zlib's, and a wrong text is found."""

import lzma
import re
import zipfile
import zlib

import pytest

from bench import codec

STAND_IN = """
import json, pathlib, sys, zlib
command, source, target = sys.argv[1:]
content = pathlib.Path(source).read_bytes()
changed = {"compress": zlib.compress, "decompress": zlib.decompress}[command](content)
pathlib.Path(target).write_bytes(changed + TAIL[command])
seconds = {"compress": 0.5, "decompress": 2.0}[command]
report = {"bytes": 1, "tokens": 500, "blocks": 1, "start_seconds": 0.25, "seconds": seconds}
print(json.dumps(report))
"""
VAL = "Fellow-citizens of the Senate, é, and of the House of Representatives.\0\n".encode() * 60


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository after `dvc repro`; what `tail` adds to a decompressed text is not the text."""
    monkeypatch.setattr(codec, "PPMD_MEMORY", 1 << 24)

    def build(tail: bytes = b""):
        folder = tmp_path / "artifacts/certify"
        folder.mkdir(parents=True)
        (folder / "val.txt").write_bytes(VAL)
        tails = {"compress": b"", "decompress": tail}
        with zipfile.ZipFile(folder / "submission.pyz", "w") as archive:
            archive.writestr("__main__.py", f"TAIL = {tails}{STAND_IN}")
        return tmp_path

    return build


def run(root, monkeypatch, capsys) -> str:
    monkeypatch.setattr("sys.argv", ["bench.codec", str(root), "--bytes", "3000"])
    codec.main()
    return capsys.readouterr().out


def test_the_page_has_a_table_a_text_and_ends_with_the_figures(root, monkeypatch, capsys):
    path = root()
    page = run(path, monkeypatch, capsys)
    size = len(zlib.compress(VAL[:3000]))
    artifact = (path / "artifacts/certify/submission.pyz").stat().st_size
    assert re.findall(r"^## (\w+): 3,000 bytes$", page, re.M) == ["val", "manual", "licence", "source"]
    assert f"| fairway | {size:,} | {8 * size / 3000:.4f} | {size + artifact:,} | 1.0000 |" in page

    lines = page[page.index("figure ") :].splitlines()
    figures = {
        name: float(value) for name, value in (re.fullmatch(r"figure codec\.(\w+) = (.+)", line).groups() for line in lines)
    }
    assert figures["val_bpb"] == pytest.approx(8 * size / 3000, abs=1e-4)
    xz = len(lzma.compress(VAL[:3000], preset=9 | lzma.PRESET_EXTREME))
    assert figures["val_to_xz"] == pytest.approx(size / xz, abs=1e-4)
    assert {f"{text}_to_{peer}" for text in ("val", "manual", "licence", "source") for peer in codec.PEERS} <= figures.keys()
    assert (figures["encode_tokens_per_second"], figures["decode_tokens_per_second"]) == (1000, 250)


def test_a_submission_that_gives_another_text_back_is_no_compressor(root, monkeypatch, capsys):
    with pytest.raises(AssertionError, match=r"submission\.pyz gives another text back"):
        run(root(tail=b"!"), monkeypatch, capsys)


@pytest.mark.parametrize("name", codec.PEERS)
@pytest.mark.parametrize("text", [b"", VAL, bytes(range(256)) * 20], ids=["empty", "text", "bytes"])
def test_a_peer_gives_the_text_back(root, name, text):
    assert codec.peer(name, text).size > 0


def test_texts_are_cut_between_characters(root):
    path = root()
    cut = VAL.index("é".encode()) + 1  # within it
    texts = codec.read_texts(path, cut)
    assert texts["val"] == VAL[: cut - 1]
    assert len({text[:20] for text in texts.values()}) == 4
