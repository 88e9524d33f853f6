"""What a tensor of a network is to quantisation; training asks as well, so that it foresees the right grids."""

from torch import Tensor

SMALL = 4096  # elements: up to here the steps and the coder's learning cost more than the integers save


def role_of(name: str, tensor: Tensor) -> str:
    """ "embedding" for looked-up tables, "matrix" for weights that multiply, "small" for what stays fp16."""
    if tensor.ndim != 2 or tensor.numel() <= SMALL or not name.endswith(".weight"):
        return "small"
    return "embedding" if name.endswith(("embedding.weight", "table.weight")) else "matrix"
