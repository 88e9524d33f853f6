"""Which optimizer trains what, at which rate: one table.

`base_lr` and `base_weight_decay` of a group are what the schedules multiply.
"""

import torch
from torch import nn

from fairway.optim.muon import COEFFICIENTS, Muon
from fairway.train.config import Train
from fairway.train.objective import Objective

# kind: (optimizer, learning rate of `train`, weight decay of `train`), after #549's groups. Projections of narrow tables
# are matrices here, though the published code leaves them to AdamW.
TABLE = {
    "matrix": ("muon", "muon_lr", "weight_decay"),
    "table": ("adamw", "embedding_lr", "adam_weight_decay"),
    "head": ("adamw", "head_lr", "adam_weight_decay"),
    "vector": ("adamw", "scalar_lr", "adam_weight_decay"),
}


def kind_of(name: str, parameter: nn.Parameter) -> str:
    """The row of the table that a parameter of an `Objective` belongs to."""
    if name.startswith("heads.") or name.endswith("unembedding.weight"):
        return "head"
    if name.endswith(("embedding.weight", "table.weight")):
        return "table"
    return "matrix" if parameter.ndim == 2 and name.endswith(".weight") else "vector"


def in_decoder(name: str, layers: int) -> bool:
    """Whether a parameter belongs to a block of the second half of the U-Net (#598 trains these at twice the rate)."""
    parts = name.split(".")
    return parts[:2] == ["model", "blocks"] and int(parts[2]) >= layers // 2


def parameter_groups(objective: Objective, config: Train) -> dict[str, list[dict]]:
    """Parameter groups by optimizer, "muon" and "adamw"; one group for each kind and rate."""
    layers = objective.model.architecture.layers
    groups: dict[tuple[str, float], dict] = {}
    for name, parameter in objective.named_parameters():
        kind = kind_of(name, parameter)
        _, rate, decay = TABLE[kind]
        lr = getattr(config, rate) * (config.decoder_lr_multiplier if in_decoder(name, layers) else 1.0)
        empty = {"params": [], "kind": kind, "lr": lr, "weight_decay": getattr(config, decay)}
        groups.setdefault((kind, lr), empty)["params"].append(parameter)
    by_optimizer: dict[str, list[dict]] = {"muon": [], "adamw": []}
    for group in groups.values():
        group |= {"base_lr": group["lr"], "base_weight_decay": group["weight_decay"]}
        by_optimizer[TABLE[group["kind"]][0]].append(group)
    return by_optimizer


def optimizers(objective: Objective, config: Train, dtype: torch.dtype) -> tuple[Muon, torch.optim.AdamW]:
    """Both, with the matrix products of Muon in `dtype`."""
    groups = parameter_groups(objective, config)
    coefficients = COEFFICIENTS[config.orthogonaliser]
    muon = Muon(groups["muon"], config.muon_lr, config.momentum, config.weight_decay, dtype, coefficients, config.row_normalise)
    betas = (config.adam_beta1, config.adam_beta2)
    return muon, torch.optim.AdamW(groups["adamw"], betas=betas, eps=1e-8, fused=True)
