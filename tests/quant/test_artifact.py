"""The file of a quantised network: exact layout, round trip, and refusal of what is not one."""

import dataclasses
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from fairway.errors import InputError
from fairway.quant import artifact
from fairway.quant.quantiser import QuantisedMatrix

SMALL_EXAMPLE = (
    {
        "a.weight": QuantisedMatrix(
            torch.tensor([[1, -2, 3], [-4, 5, -6]], dtype=torch.int8), torch.tensor([0.5, 2.0]).half(), 6
        )
    },
    {"gain": torch.tensor([1.0, -1.0]).half(), "one": torch.tensor(1.0).half()},
)


def test_layout_byte_by_byte(tiny, tmp_path):
    path = tmp_path / "integers.safetensors"
    artifact.save(path, tiny, *SMALL_EXAMPLE)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__")
    assert list(metadata) == ["quantised"]  # of several keys, safetensors would write a random order
    assert json.loads(metadata["quantised"]) == {
        "architecture": dataclasses.asdict(tiny),
        "bits": {"a.weight": 6},
    }
    data = {name: (e["dtype"], e["shape"], content[8 + length :][slice(*e["data_offsets"])]) for name, e in header.items()}
    assert data == {
        "a.weight.integers": ("I8", [2, 3], bytes([1, 254, 3, 252, 5, 250])),
        "a.weight.scales": ("F16", [2], bytes.fromhex("00380040")),
        "gain": ("F16", [2], bytes.fromhex("003c00bc")),
        "one": ("F16", [], bytes.fromhex("003c")),
    }


names = st.text("abc.", min_size=1, max_size=6)
shapes = st.tuples(st.integers(1, 5), st.integers(1, 5))


@settings(deadline=None)
@given(st.dictionaries(names.map("m{}".format), shapes), st.dictionaries(names.map("s{}".format), shapes), st.data())
def test_round_trip(tiny, tmp_path_factory, matrix_shapes, small_shapes, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    matrices = {
        name: QuantisedMatrix(
            torch.randint(-127, 128, shape, generator=generator, dtype=torch.int8),
            torch.rand(shape[0], generator=generator).half(),
            data.draw(st.integers(2, 8)),
        )
        for name, shape in matrix_shapes.items()
    }
    small = {name: torch.rand(shape, generator=generator).half() for name, shape in small_shapes.items()}
    path = tmp_path_factory.getbasetemp() / "round_trip.safetensors"
    artifact.save(path, tiny, matrices, small)
    architecture, matrices_back, small_back = artifact.load(path)
    assert architecture == tiny
    assert matrices_back.keys() == matrices.keys()
    for name, matrix in matrices.items():
        assert torch.equal(matrices_back[name].integers, matrix.integers)
        assert torch.equal(matrices_back[name].scales, matrix.scales)
        assert matrices_back[name].bits == matrix.bits
    assert small_back.keys() == small.keys()
    assert all(torch.equal(small_back[name], tensor) for name, tensor in small.items())


def test_damaged_and_foreign_files_are_refused(tiny, tmp_path):
    path = tmp_path / "integers.safetensors"
    artifact.save(path, tiny, *SMALL_EXAMPLE)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="not a quantised network"):
        artifact.load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="not a quantised network"):
        artifact.load(path)
    tensors, metadata = artifact.to_tensors(tiny, *SMALL_EXAMPLE)
    del tensors["a.weight.scales"]
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(InputError, match=r"a\.weight\.scales"):
        artifact.load(path)
