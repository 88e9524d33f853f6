"""`submission.pyz`: it runs alone, is the same every time, and sealing settings keeps its size; the import closure."""

import hashlib
import io
import json
import lzma
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fairway import kernels
from fairway.closure import import_closure
from fairway.codec import archive, container
from fairway.errors import InputError
from fairway.quant.matrix import QuantisedMatrix
from fairway.submission.packing import MODULES, SETTINGS_BYTES, TOKENIZER, WEIGHTS, build, seal, sizes
from fairway.text.tokenizer import BYTE_MODEL

PROJECT = {
    "demo/__init__.py": "",
    "demo/tool/__init__.py": "",
    "demo/loud/__init__.py": "GREETING = 'loud'\n",
    "demo/loud/voice.py": "def shout(text):\n    return text.upper()\n",
    "demo/unused.py": "raise RuntimeError\n",
    "demo/tool/__main__.py": "",
    "demo/tool/entry.py": '''
"""The entry: """

import json
import sys
import zipfile
from dataclasses import dataclass, fields

from demo.tool import helper


@dataclass(frozen=True)
class Sizes:
    """A docstring that the minifier removes."""

    width: int
    depth: int = 3


def main(argv: list[str]) -> int:
    """Prints what it finds; takes one argument."""
    import demo.loud.voice

    # A comment that the minifier removes.
    long_name_of_an_archive: zipfile.ZipFile = zipfile.ZipFile(sys.argv[0])
    settings = json.loads(long_name_of_an_archive.read("settings.json"))
    found = [field.name for field in fields(Sizes)]
    print(demo.loud.voice.shout(argv[0]), helper.DOUBLE(Sizes(width=4).width), found, settings)
    return long_name_of_an_archive.read("model.fwy") != b"weights" * 100
''',
    "demo/tool/helper.py": "from .other import double as DOUBLE\n",
    "demo/tool/other.py": "def double(number):\n    return 2 * number\n",
}
CLOSURE = [
    "demo/loud/__init__.py",
    "demo/loud/voice.py",
    "demo/tool/entry.py",
    "demo/tool/helper.py",
    "demo/tool/other.py",
]
NOISE = hashlib.shake_128(b"").digest(256)
MEMBERS = {"tokenizer.model": NOISE, "model.fwy": b"weights" * 100}


@pytest.fixture
def project(tmp_path) -> Path:
    for name, text in PROJECT.items():
        path = tmp_path / "repository" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "repository"


def run(pyz: bytes, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run an application in an isolated interpreter (-I: no PYTHONPATH, no current folder), alone in a folder."""
    folder.mkdir()
    (folder / "submission.pyz").write_bytes(pyz)
    command = [sys.executable, "-I", "submission.pyz", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_closure_follows_every_form_of_import(project):
    assert import_closure("demo.tool.entry", project) == CLOSURE
    assert import_closure("demo/tool/entry.py", project) == CLOSURE
    assert import_closure("demo.loud.voice", project) == ["demo/loud/voice.py"]


def test_closure_of_a_real_module():
    root = Path(__file__).parents[2]
    closure = import_closure("fairway.codec.container", root)
    codec = [f"fairway/codec/{name}.py" for name in ("container", "general", "header", "mixing", "weights")]
    quant = [f"fairway/quant/{name}.py" for name in ("matrix", "rotation", "trellis")]
    assert closure == [*codec, "fairway/errors.py", "fairway/kernels.py", *quant]


def test_closure_of_nothing_is_refused(project):
    with pytest.raises(InputError, match=r"demo\.missing"):
        import_closure("demo.missing", project)


def test_it_runs_alone_in_an_empty_folder(project, tmp_path):
    done = run(build(["demo.tool.entry"], MEMBERS, project), tmp_path / "empty", "hello")
    assert (done.stdout, done.stderr, done.returncode) == ("HELLO 8 ['width', 'depth'] {}\n", "", 0)


def test_modules_of_this_repository_run(tmp_path):
    """The weights file survives shaking and minifying: the packed container reads the same weights as this one."""
    root, project = Path(__file__).parents[2], tmp_path / "repository"
    for name in import_closure("fairway.codec.container", root):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text((root / name).read_text())
    (project / "entry.py").write_text(
        "from fairway.codec import container\n"
        "def main(argv):\n"
        "    print(container.read(bytes.fromhex(argv[0]))[1]['w'].tobytes().hex(), container.__file__)\n"
    )
    integers = np.arange(-60, 60, dtype=np.int8).reshape(12, 10)
    matrix = QuantisedMatrix(integers, np.linspace(0.1, 1, 12).astype(np.float16), 7, states=8, rotation=2)
    pyz = build(["entry"], {}, project)
    done = run(pyz, tmp_path / "empty", container.write({}, {"w": matrix}, {}).hex())
    assert done.stderr == ""
    weights, file = done.stdout.split()
    assert file.endswith("submission.pyz/fairway/codec/container.py")
    assert weights == matrix.weights().tobytes().hex()
    with zipfile.ZipFile(io.BytesIO(pyz)) as archive:
        assert b".compressobj" not in lzma.decompress(archive.read("code"))  # which only writing needs


def test_quant_knows_the_size_of_what_is_packed():
    """Without the packed code, of which it has a constant: 0.1 % of a budget of 700,000 bytes is 700."""
    found = sizes(build(MODULES, {TOKENIZER: BYTE_MODEL, WEIGHTS: NOISE}, Path(__file__).parents[2]))
    assert (found["tokenizer_bytes"], found["weights_bytes"]) == (archive.smallest(BYTE_MODEL)[1], len(NOISE))
    assert abs(found["code_bytes"] - archive.CODE_BYTES) <= 300, f"set archive.CODE_BYTES to {found['code_bytes']}"


def test_same_input_same_bytes(project):
    first = build(["demo.tool.entry", "demo.loud.voice"], MEMBERS, project)
    (project / "demo/tool/entry.py").touch()
    assert build(["demo.tool.entry", "demo.loud.voice"], dict(reversed(MEMBERS.items())), project) == first


def test_comments_and_docstrings_cost_nothing(project):
    before = build(["demo.tool.entry"], MEMBERS, project)
    source = project / "demo/tool/entry.py"
    source.write_text(source.read_text().replace("# A comment", "# A longer comment"))
    assert build(["demo.tool.entry"], MEMBERS, project) == before


def test_code_is_one_stream_of_what_is_needed(project):
    (project / "demo/tool/other.py").write_text(PROJECT["demo/tool/other.py"] + "def unused():\n    return 'never'\n")
    with zipfile.ZipFile(io.BytesIO(build(["demo.tool.entry"], MEMBERS, project))) as archive:
        parts = lzma.decompress(archive.read("code")).decode().split("\0")
    assert parts[::2] == [
        "demo.loud",
        "demo.loud.voice",
        "demo.tool.entry",
        "demo.tool.helper",
        "demo.tool.other",
    ]
    assert parts[9].startswith("def double(") and "never" not in parts[9]
    assert sum(map(len, parts)) < 0.9 * sum(len(PROJECT[path]) for path in CLOSURE)


def test_a_traceback_names_the_packed_module(project, tmp_path):
    (project / "demo/tool/other.py").write_text("def double(number):\n    raise ArithmeticError('here')\n")
    done = run(build(["demo.tool.entry"], MEMBERS, project), tmp_path / "empty", "hello")
    assert done.returncode == 1
    assert 'submission.pyz/demo/tool/other.py", line 1, in double' in done.stderr


def test_compiled_code_runs_from_the_zip_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "fairway").mkdir()
    shutil.copy(Path(kernels.__file__), tmp_path / "fairway")
    (tmp_path / "entry.py").write_text(
        "from fairway.kernels import njit\n@njit\ndef f(x):\n    return x + 1\ndef main(argv):\n    print(f(3))\n"
    )
    done = run(build(["entry"], {}, tmp_path), tmp_path / "empty")
    assert (done.stdout, done.stderr) == ("4\n", "")
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["submission.pyz"]


def test_members_dates_and_order(project):
    with zipfile.ZipFile(io.BytesIO(build(["demo.tool.entry"], MEMBERS, project))) as archive:
        assert archive.testzip() is None
        entries = archive.infolist()
        assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
        members = ["model.fwy", "tokenizer.model"]
        assert [entry.filename for entry in entries] == ["__main__.py", "code", *members, "settings.json"]
        assert {name: archive.read(name) for name in MEMBERS} == MEMBERS
        methods = {entry.filename: entry.compress_type for entry in entries}
    assert methods["__main__.py"] == zipfile.ZIP_DEFLATED
    stored = [name for name, method in methods.items() if method == zipfile.ZIP_STORED]
    # Noise does not get smaller; weights are coded already, and what the container takes is what counts.
    assert stored == ["code", "model.fwy", "tokenizer.model", "settings.json"]


def test_a_long_member_goes_through_lzma(project):
    text = "".join(f"{number * number}\n" for number in range(5000)).encode()
    with zipfile.ZipFile(io.BytesIO(build(["demo.tool.entry"], {"tokenizer.model": text}, project))) as archive:
        assert archive.getinfo("tokenizer.model").compress_type == zipfile.ZIP_LZMA
        assert archive.read("tokenizer.model") == text


def test_sizes_add_up(project):
    pyz = build(["demo.tool.entry"], MEMBERS, project)
    parts = sizes(pyz)
    assert parts["total"] == len(pyz) == parts["code_bytes"] + parts["tokenizer_bytes"] + parts["weights_bytes"]
    assert parts["tokenizer_bytes"] == 256
    assert parts["weights_bytes"] == 700
    without = sizes(build(["demo.tool.entry"], {}, project))
    assert (without["tokenizer_bytes"], without["weights_bytes"]) == (0, 0)


def test_sealing_changes_the_settings_only(project, tmp_path):
    pyz = build(["demo.tool.entry"], MEMBERS, project)
    sealed = seal(pyz, {"chunk": 512, "lr": 1e-3})
    assert len(sealed) == len(pyz)
    with zipfile.ZipFile(io.BytesIO(sealed)) as archive, zipfile.ZipFile(io.BytesIO(pyz)) as before:
        assert archive.testzip() is None
        assert json.loads(archive.read("settings.json")) == {"chunk": 512, "lr": 1e-3}
        assert archive.getinfo("settings.json").file_size == SETTINGS_BYTES
        same = [name for name in before.namelist() if name != "settings.json"]
        assert all(archive.read(name) == before.read(name) for name in same)
    assert seal(sealed, {}) == pyz
    assert "{'chunk': 512, 'lr': 0.001}" in run(sealed, tmp_path / "empty", "hello").stdout


def test_what_cannot_be_sealed_is_refused(project):
    pyz = build(["demo.tool.entry"], MEMBERS, project)
    free = SETTINGS_BYTES - len('{"a":""}')
    assert len(seal(pyz, {"a": "x" * free})) == len(pyz)
    with pytest.raises(InputError, match=f"{SETTINGS_BYTES + 1} bytes"):
        seal(pyz, {"a": "x" * (free + 1)})
    with pytest.raises(InputError, match="not a zip application"):
        seal(pyz[:-30], {})
    with pytest.raises(InputError, match="not a zip application"):
        sizes(b"nothing")
    foreign = io.BytesIO()
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("other.txt", "x")
    with pytest.raises(InputError, match=r"found 'other\.txt'"):
        seal(foreign.getvalue(), {})


def bomb(method: int, size: int) -> bytes:
    """A zip whose member of zeros has `size` bytes."""
    stream, member = io.BytesIO(), zipfile.ZipInfo("settings.json")
    member.compress_type = method
    with zipfile.ZipFile(stream, "w") as archive, archive.open(member, "w") as file:
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    return stream.getvalue()


def test_what_swells_is_refused_without_unpacking_it():
    """Also where the zip tells a size that is not the member's: zipfile itself unpacks all that it has read of LZMA."""
    large, lying = bomb(zipfile.ZIP_DEFLATED, 300 << 20), bomb(zipfile.ZIP_LZMA, 200 << 20)
    told = lying.replace(struct.pack("<I", 200 << 20), struct.pack("<I", 1 << 20))
    assert told != lying
    tracemalloc.start()
    try:
        for content, sentence in ((large, "it unpacks to more than 268,435,456 bytes"), (told, "not a zip application")):
            with pytest.raises(InputError, match=sentence):
                sizes(content)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
