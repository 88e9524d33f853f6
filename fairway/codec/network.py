"""From the bytes of `model.fwy` to a network that runs."""

import torch

from fairway.codec import container
from fairway.lm.config import Architecture
from fairway.lm.model import GPT


def model_from(weights: bytes, source: str = "model.fwy") -> GPT:
    """The network in a `model.fwy`, in float32. Raises ContainerError, which names `source`, when the file is damaged."""
    architecture, arrays = container.read(weights, source)
    model = GPT(Architecture(**architecture))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return model.eval()
