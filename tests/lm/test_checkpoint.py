"""Checkpoint files: round trip, the same bytes every time, and a sentence for files that are no checkpoints."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file

from fairway.errors import InputError
from fairway.lm import checkpoint
from fairway.lm.model import GPT


def test_round_trip_rebuilds_the_same_network(tmp_path, tiny, shaken):
    model = shaken(tiny)
    checkpoint.save(tmp_path / "a", tiny, model.state_dict())
    architecture, state = checkpoint.load(tmp_path / "a")
    assert architecture == tiny
    rebuilt = GPT(architecture)
    rebuilt.load_state_dict(state)
    tokens = torch.arange(10)[None]
    assert torch.equal(rebuilt(tokens), model(tokens))


def test_tensors_are_stored_as_float32(tmp_path, tiny):
    checkpoint.save(tmp_path / "a", tiny, {"w": torch.ones(2, 3, dtype=torch.bfloat16).mT})
    state = checkpoint.load(tmp_path / "a")[1]
    assert state["w"].dtype == torch.float32 and state["w"].shape == (3, 2)


def test_same_tensors_same_bytes(tmp_path, tiny, shaken):
    state = shaken(tiny).state_dict()
    checkpoint.save(tmp_path / "a", tiny, state)
    checkpoint.save(tmp_path / "b", tiny, dict(reversed(state.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("damage", [lambda whole: whole[: len(whole) // 2], lambda _: b"", lambda _: b"some text " * 9])
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path, tiny, shaken, damage):
    path = tmp_path / "checkpoint.safetensors"
    checkpoint.save(path, tiny, shaken(tiny).state_dict())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"checkpoint.safetensors: not a fairway checkpoint \(.+\); run `dvc repro`"):
        checkpoint.load(path)


@pytest.mark.parametrize("metadata", [None, {"other": "x"}, {"architecture": "{"}])
def test_a_foreign_safetensors_file_is_refused_in_a_sentence(tmp_path, metadata):
    save_file({"w": torch.ones(1)}, tmp_path / "foreign", metadata=metadata)
    with pytest.raises(InputError, match="foreign: not a fairway checkpoint"):
        checkpoint.load(tmp_path / "foreign")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"heads": 0}, "its metadata: 'architecture.heads' is 0; expected a whole number at least 1"),
        ({"heads": 3}, "model.width 32 is not divisible by model.heads 3"),
        (
            {"activation": "star_relv"},
            "its metadata: 'architecture.activation' is 'star_relv'; expected one of leaky_relu2, "
            "star_relu, swiglu, square_glu",
        ),
        ({"laxers": 3}, "its metadata: unknown key 'architecture.laxers'; the nearest valid key is 'architecture.layers'"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused(tmp_path, tiny, changes, sentence):
    config = json.dumps(dataclasses.asdict(tiny) | changes)
    save_file({"w": torch.ones(1)}, tmp_path / "a", metadata={"architecture": config})
    with pytest.raises(InputError) as error:
        checkpoint.load(tmp_path / "a")
    assert str(error.value) == f"{tmp_path / 'a'}: {sentence}"


def test_the_network_of_a_checkpoint(tmp_path, tiny, shaken):
    model = shaken(tiny)
    checkpoint.save(tmp_path / "a", tiny, model.state_dict())
    found = checkpoint.network(tmp_path / "a")
    tokens = torch.arange(10)[None]
    assert found.architecture == tiny and torch.equal(found(tokens), model(tokens))


def test_tensors_that_are_not_those_of_the_network_are_refused(tmp_path, tiny, shaken):
    name, path = "blocks.0.attention.output.weight", tmp_path / "a"
    state = shaken(tiny).state_dict()
    assert state[name].shape == (32, 32)
    beyond = "holds values beyond ±65,504, or none at all"
    for changed, problem in (
        (torch.ones(32, 31), "has shape (32, 31), its architecture expects (32, 32)"),
        (state[name].clone().index_fill_(0, torch.tensor(3), torch.nan), beyond),
        (state[name].clone().index_fill_(0, torch.tensor(3), -65_536.0), beyond),
        (None, "has shape None, its architecture expects (32, 32)"),
    ):
        tensors = {key: value for key, value in (state | {name: changed}).items() if value is not None}
        checkpoint.save(path, tiny, tensors)
        with pytest.raises(InputError) as error:
            checkpoint.network(path)
        assert str(error.value) == f"{path}: tensor '{name}' {problem}; run `dvc repro` to write it again"
