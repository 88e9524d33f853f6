"""Load a network from the bytes of `model.fwy`."""

import torch

from fairway.codec import container
from fairway.lm.config import Architecture
from fairway.lm.model import GPT


def model_from(weights: bytes, source: str = "model.fwy") -> GPT:
    """The network of a `model.fwy` in float32, evaluation mode. Raises ContainerError, naming `source`, on a damaged file."""
    architecture, arrays = container.read(weights, source)
    model = GPT(Architecture(**architecture))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return model.eval()
