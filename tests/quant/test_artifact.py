"""The file of a quantised network: exact layout, round trip, and refusal of damaged and foreign files."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from fairway.errors import InputError
from fairway.quant import artifact, quantiser
from fairway.quant.matrix import QuantisedMatrix

FACTORS = (
    QuantisedMatrix(np.array([[1, -1]], np.int8), np.array([1.0], np.float16), 2),
    QuantisedMatrix(np.array([[1, 0, -1]], np.int8), np.array([0.25], np.float16), 2),
)
INTEGERS, SCALES = np.array([[1, -2, 3], [-4, 5, -6]], np.int8), np.array([0.5, 2.0], np.float16)
EXAMPLE = (
    {
        "a.weight": QuantisedMatrix(INTEGERS, SCALES, 6),
        "b.weight": QuantisedMatrix(INTEGERS, SCALES, 8, states=4, rotation=16, correction=FACTORS),
    },
    {"gain": np.array([1.0, -1.0], np.float16), "one": np.array(1.0, np.float16)},
)


def same(one: QuantisedMatrix, other: QuantisedMatrix) -> bool:
    """Every field to the bit; an empty or missing correction has no factors."""
    parts = all(
        getattr(one, name).tobytes() == getattr(other, name).tobytes()
        and getattr(one, name).shape == getattr(other, name).shape
        and getattr(one, name).dtype == getattr(other, name).dtype
        for name in ("integers", "scales")
    )
    settings = all(getattr(one, name) == getattr(other, name) for name in ("integer_bits", "states", "rotation"))
    factors = zip(one.correction or (), other.correction or (), strict=True)
    return (
        parts and settings and (one.correction is None) == (other.correction is None) and all(same(*pair) for pair in factors)
    )


def test_layout_byte_by_byte(tiny, tmp_path):
    path = tmp_path / "integers.safetensors"
    artifact.save(path, tiny, *EXAMPLE)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__")
    assert list(metadata) == ["quantised"]  # of several keys, safetensors would write a random order
    assert json.loads(metadata["quantised"]) == {
        "architecture": dataclasses.asdict(tiny),
        "matrices": {
            "a.weight": {"bits": 6, "states": 0, "rotation": 0},
            "b.weight": {"bits": 8, "states": 4, "rotation": 16, "repair_bits": 2},
        },
    }
    data = {name: (e["dtype"], e["shape"], content[8 + length :][slice(*e["data_offsets"])]) for name, e in header.items()}
    integers, scales = ("I8", [2, 3], bytes([1, 254, 3, 252, 5, 250])), ("F16", [2], bytes.fromhex("00380040"))
    assert data == {
        "a.weight.integers": integers,
        "a.weight.scales": scales,
        "b.weight.integers": integers,
        "b.weight.scales": scales,
        "b.weight.left.integers": ("I8", [1, 2], bytes([1, 255])),
        "b.weight.left.scales": ("F16", [1], bytes.fromhex("003c")),
        "b.weight.right.integers": ("I8", [1, 3], bytes([1, 0, 255])),
        "b.weight.right.scales": ("F16", [1], bytes.fromhex("0034")),
        "gain": ("F16", [2], bytes.fromhex("003c00bc")),
        "one": ("F16", [], bytes.fromhex("003c")),
    }


def random_matrix(shape: tuple[int, int], bits: int, generator: np.random.Generator, **options) -> QuantisedMatrix:
    limit = 2 ** (bits - 1) - 1
    integers = generator.integers(-limit, limit + 1, shape, dtype=np.int8)
    return QuantisedMatrix(integers, generator.random(shape[0]).astype(np.float16), bits, **options)


names = st.text("abc.", min_size=1, max_size=6)
grids = st.tuples(
    st.tuples(st.integers(1, 5), st.integers(1, 5)), st.integers(2, 8), st.sampled_from([0, 4, 8]), st.sampled_from([0, 1, 64])
)


@given(
    st.dictionaries(names.map("m{}".format), grids), st.lists(names.map("s{}".format)), st.integers(0, 99), st.integers(0, 3)
)
def test_round_trip(tiny, tmp_path_factory, shapes, small_names, seed, rank):
    generator = np.random.default_rng(seed)
    matrices = {}
    for name, (shape, bits, states, rotation) in shapes.items():
        correction = tuple(random_matrix((rank, side), 4, generator) for side in shape) if rank else None
        integers = random_matrix(shape, bits, generator, states=states, rotation=rotation, correction=correction)
        matrices[name] = dataclasses.replace(integers, integers=np.asfortranarray(integers.integers))
    fp16 = {
        name: generator.random(generator.integers(1, 4, index % 3)).astype(np.float16) for index, name in enumerate(small_names)
    }
    path = tmp_path_factory.getbasetemp() / "round_trip.safetensors"
    artifact.save(path, tiny, matrices, fp16)
    first = path.read_bytes()
    architecture, matrices_back, fp16_back = artifact.load(path)
    assert architecture == tiny
    assert list(matrices_back) == sorted(matrices) and all(same(matrices_back[name], matrices[name]) for name in matrices)
    assert list(fp16_back) == sorted(fp16)
    for name, values in fp16.items():
        assert fp16_back[name].shape == values.shape and fp16_back[name].tobytes() == values.tobytes()
    artifact.save(path, architecture, matrices_back, fp16_back)
    assert path.read_bytes() == first


def test_order_of_names_does_not_change_a_byte(tiny):
    matrices, fp16 = EXAMPLE
    backwards = dict(reversed(matrices.items())), dict(reversed(fp16.items()))
    (tensors, metadata), (others, other_metadata) = artifact.to_tensors(tiny, *EXAMPLE), artifact.to_tensors(tiny, *backwards)
    assert metadata == other_metadata
    assert {name: values.tobytes() for name, values in tensors.items()} == {n: v.tobytes() for n, v in others.items()}


def without(change, tiny, path) -> None:
    """The example file with one change."""
    tensors, metadata = artifact.to_tensors(tiny, *EXAMPLE)
    header = json.loads(metadata["quantised"])
    change(tensors, header)
    save_file(tensors, path, metadata={"quantised": json.dumps(header)})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda tensors, header: tensors.pop("a.weight.scales"), "a.weight.scales"),
        (lambda tensors, header: tensors.pop("b.weight.right.integers"), "b.weight.right.integers"),
        (lambda tensors, header: header.pop("matrices"), "matrices"),
        (lambda tensors, header: header["matrices"]["a.weight"].update(colour=3), "colour"),
        (lambda tensors, header: header["matrices"].update({"a.weight": 6}), ""),
        (lambda tensors, header: header["architecture"].pop("layers"), "layers"),
        (lambda tensors, header: header["architecture"].update(colour=3), "colour"),
    ],
)
def test_a_file_that_contradicts_itself_is_one_sentence(tiny, tmp_path, change, named):
    path = tmp_path / "integers.safetensors"
    without(change, tiny, path)
    with pytest.raises(InputError) as error:
        artifact.load(path)
    message = str(error.value)
    assert message.startswith(f"{path}: not a quantised network (") and named in message and "\n" not in message
    assert message.endswith("); run `dvc repro` to write it again")


def test_damaged_and_foreign_files_are_refused(tiny, tmp_path):
    path = tmp_path / "integers.safetensors"
    artifact.save(path, tiny, *EXAMPLE)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:100], whole[:4], b"", b"\xff" * 100, b"PK" + whole):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="not a quantised network"):
            artifact.load(path)
    for metadata in (None, {"other": "x"}, {"quantised": "{"}, {"quantised": "[]"}):
        save_file({"a": np.zeros(1, np.float16)}, path, metadata=metadata)
        with pytest.raises(InputError, match="not a quantised network"):
            artifact.load(path)


@pytest.fixture
def quantised(tiny, shaken, quant_params):
    """Architecture, matrices and fp16 tensors of a network that is wide enough to have matrices."""
    architecture, params = dataclasses.replace(tiny, width=72, rope_dims=6), quant_params(method="rtn")
    state = {name: tensor.detach() for name, tensor in shaken(architecture).state_dict().items()}
    matrices = quantiser.quantise(quantiser.prepare(state, {}, params, architecture.layers), params)
    return architecture, matrices, quantiser.fp16_tensors(state, 10)


def test_a_whole_network_is_read(tmp_path, quantised):
    artifact.save(tmp_path / "a", *quantised)
    architecture, matrices, fp16 = artifact.load_whole(tmp_path / "a")
    assert architecture == quantised[0] and list(fp16) == sorted(quantised[2])
    assert len(matrices) > 3 and all(same(matrices[name], quantised[1][name]) for name in matrices)


GRID = "is not on the grid that its metadata describe"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"integer_bits": 9}, GRID),
        ({"integer_bits": 2}, GRID),
        ({"states": 5}, GRID),
        ({"rotation": 3}, GRID),
        ({"rotation": 1024}, GRID),
        ({"scales": np.full(72, np.inf, np.float16)}, GRID),
        ({"scales": np.ones(71, np.float16)}, GRID),
        ({"integers": np.zeros((72, 71), np.int8)}, "has shape (72, 71), its architecture expects (72, 72)"),
        (None, "has shape None, its architecture expects (72, 72)"),
    ],
)
def test_a_matrix_that_cannot_be_is_refused(tmp_path, quantised, changes, problem):
    architecture, matrices, fp16 = quantised
    name, path = "blocks.0.attention.output.weight", tmp_path / "a"
    changed = {} if changes is None else {name: dataclasses.replace(matrices[name], **changes)}
    artifact.save(path, architecture, {key: matrix for key, matrix in matrices.items() if key != name} | changed, fp16)
    with pytest.raises(InputError) as error:
        artifact.load_whole(path)
    assert str(error.value) == f"{path}: tensor '{name}' {problem}; run `dvc repro` to write it again"


def test_fp16_tensors_that_are_not_finite_are_refused(tmp_path, quantised):
    architecture, matrices, fp16 = quantised
    name, path = min(fp16), tmp_path / "a"
    for values in (fp16[name] * np.nan, fp16[name].astype(np.float32)):
        artifact.save(path, architecture, matrices, fp16 | {name: values})
        with pytest.raises(InputError) as error:
            artifact.load_whole(path)
        problem = f"tensor '{name}' does not hold finite numbers of 16 bits; run `dvc repro` to write it again"
        assert str(error.value) == f"{path}: {problem}"
