"""Float checkpoints: safetensors with the architecture inside, so that whoever has the file can build the network."""

import dataclasses
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fairway.errors import InputError
from fairway.lm.config import Architecture


def save(path: Path | str, architecture: Architecture, state: dict[str, torch.Tensor]) -> None:
    """Tensors of any float type, stored as float32."""
    tensors = {name: tensor.detach().float().contiguous() for name, tensor in state.items()}
    save_file(tensors, path, metadata={"architecture": json.dumps(dataclasses.asdict(architecture), sort_keys=True)})


def load(path: Path | str) -> tuple[Architecture, dict[str, torch.Tensor]]:
    """The architecture and the float32 tensors. Raises InputError when the file is damaged or foreign."""
    try:
        with safe_open(path, framework="pt") as file:
            architecture = Architecture(**json.loads(file.metadata()["architecture"]))
            return architecture, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not a fairway checkpoint ({error}); run `dvc repro` to write it again") from None
