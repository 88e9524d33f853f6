"""Load a network from the bytes of `model.fwy`."""

import numpy as np
import torch

from fairway.bounds import checked
from fairway.codec import container
from fairway.codec.container import ContainerError
from fairway.errors import InputError
from fairway.lm.config import Architecture
from fairway.lm.model import GPT


def model_from(weights: bytes, source: str = "model.fwy") -> GPT:
    """The network of a `model.fwy` in float32, evaluation mode.

    Raises ContainerError, naming `source`, on a damaged file, and before any weight is decoded where the file describes no
    network or its tensors are not those of the network.
    """
    architecture = _architecture(container.read_header(weights, source), source)
    arrays = container.read(weights, source)[1]
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ContainerError(f"{source}: tensor '{name}' holds what is no number")
    model = GPT(architecture)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return model.eval()


def _architecture(header: container.Header, source: str) -> Architecture:
    found = {entry.name: entry.shape for entry in header.entries}
    try:
        architecture = checked(Architecture, header.config)
        with torch.device("meta"):  # shapes alone
            expected = {name: tuple(tensor.shape) for name, tensor in GPT(architecture).state_dict().items()}
    except (InputError, ValueError, TypeError, RuntimeError) as error:
        raise ContainerError(f"{source}: describes no network ({error!s:.200})") from None
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise ContainerError(
                f"{source}: tensor '{name:.99}' has shape {found.get(name)}, its network expects {expected.get(name)}"
            )
    return architecture
