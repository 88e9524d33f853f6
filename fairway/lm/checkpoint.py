"""Float checkpoints: safetensors with the architecture in the metadata, so that the file is enough to build the network.

A file has no checksum of its own: DVC's hash finds the damage that neither the format nor the shapes show.
"""

import dataclasses
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised

from fairway.errors import RERUN, InputError, reading
from fairway.lm.config import Architecture
from fairway.lm.model import GPT
from fairway.params import parse

LARGEST = torch.finfo(torch.float16).max  # that quantization can store


def save(path: Path | str, architecture: Architecture, state: dict[str, torch.Tensor]) -> None:
    """Tensors of any float type, stored as float32."""
    tensors = {name: tensor.detach().float().contiguous() for name, tensor in state.items()}
    metadata = {"architecture": json.dumps(dataclasses.asdict(architecture), sort_keys=True)}
    Path(path).write_bytes(serialised(tensors, metadata))  # an error of Python's: safetensors' own is no OSError


def load(path: Path | str) -> tuple[Architecture, dict[str, torch.Tensor]]:
    """The architecture and the float32 tensors. Raises InputError when the file is damaged or no checkpoint."""
    with (
        reading(path, "a fairway checkpoint", SafetensorError, TypeError, KeyError, ValueError),
        safe_open(path, framework="pt") as file,
    ):
        architecture = parse(json.loads(file.metadata()["architecture"]), "architecture", Architecture, "its metadata")
        return architecture, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


def network(path: Path | str) -> GPT:
    """The network of a checkpoint. Raises InputError as `load`, and when its tensors are not those of its architecture."""
    architecture, state = load(path)
    model = shaped(path, architecture, {name: tuple(tensor.shape) for name, tensor in state.items()})
    for name, tensor in state.items():
        if not (tensor.abs() <= LARGEST).all():
            raise InputError(f"{path}: tensor '{name}' holds values beyond ±{LARGEST:,.0f}, or none at all; {RERUN}")
    model.load_state_dict(state)
    return model


def shaped(path: Path | str, architecture: Architecture, found: dict[str, tuple]) -> GPT:
    """A network of this architecture. Raises InputError when its tensors have other shapes than those found in a file."""
    model = GPT(architecture)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            problem = f"has shape {found.get(name)}, its architecture expects {expected.get(name)}"
            raise InputError(f"{path}: tensor '{name}' {problem}; {RERUN}")
    return model
