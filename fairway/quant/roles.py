"""What a tensor of a network is to quantisation; training asks as well, so that it foresees the right grids."""

from torch import Tensor

SMALL = 4096  # elements: up to here the steps and the coder's learning cost more than the integers save


def role_of(name: str, tensor: Tensor) -> str:
    """ "embedding" (tables and the head), "attention", "feed_forward", "projection" (of narrow tables), or "small"."""
    if tensor.ndim != 2 or tensor.numel() <= SMALL or not name.endswith(".weight"):
        return "small"
    if name.endswith(("embedding.weight", "table.weight")):
        return "embedding"
    return next((role for role in ("attention", "feed_forward") if f".{role}." in name), "projection")


def layer_of(name: str) -> int | None:
    """The layer that a tensor belongs to, None outside the stack."""
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blocks" else None
