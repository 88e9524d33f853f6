"""The processes that train together: one per GPU, or several on CPUs, on any number of nodes (torchrun's environment).

Gradients are averaged explicitly instead of by DistributedDataParallel, because Muon reduces each of its matrices to the
rank that orthogonalises it. On a single rank every method returns at once.
"""

import os
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """This process among the others. Hashable and stateless: torch keeps the process group."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def join(cls) -> "Ranks":
        """Join the process group that torchrun's environment describes; without one this is the only rank."""
        cuda = torch.cuda.is_available()
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
        if size == 1:
            return cls(device=device)
        dist.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
        return cls(dist.get_rank(), size, device)

    def leave(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()

    def average_(self, tensors: list[Tensor]) -> None:
        """Replace float tensors by their mean over the ranks, all in one message."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        parts = flat.split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(tensors, [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)])

    def gather(self, *values: float) -> list[tuple[float, ...]]:
        """The values of every rank, by rank; float64."""
        if self.size == 1:
            return [values]
        mine = torch.tensor(values, dtype=torch.float64, device=self.device)
        everyone = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(everyone, mine)
        return [tuple(row.tolist()) for row in everyone]

    def barrier(self) -> None:
        self.gather(0.0)


SINGLE_PROCESS = Ranks()
