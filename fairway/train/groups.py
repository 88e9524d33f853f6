"""The optimizers and their parameter groups, as fairway.lm.parameters says."""

import torch

from fairway.lm.parameters import GROUPS, kind_of, layer_of
from fairway.optim.muon import COEFFICIENTS, Muon
from fairway.train.config import Train
from fairway.train.objective import Objective


def in_decoder(name: str, layers: int) -> bool:
    """Whether a parameter belongs to a block of the second half of the U-Net (#598 trains these at twice the rate)."""
    layer = layer_of(name)
    return layer is not None and layer >= layers // 2


def parameter_groups(objective: Objective, config: Train) -> dict[str, list[dict]]:
    """Parameter groups by optimizer, "muon" and "adamw"; one group for each kind and rate.

    The schedules multiply `base_lr` and `base_weight_decay` of a group.
    """
    layers = objective.model.architecture.layers
    groups: dict[tuple[str, float], dict] = {}
    for name, parameter in objective.named_parameters():
        kind = kind_of(name, parameter.shape)
        lr = getattr(config, GROUPS[kind].lr) * (config.decoder_lr_multiplier if in_decoder(name, layers) else 1.0)
        empty = {"params": [], "kind": kind, "lr": lr, "weight_decay": getattr(config, GROUPS[kind].weight_decay)}
        groups.setdefault((kind, lr), empty)["params"].append(parameter)
    by_optimizer: dict[str, list[dict]] = {"muon": [], "adamw": []}
    for group in groups.values():
        group |= {"base_lr": group["lr"], "base_weight_decay": group["weight_decay"]}
        by_optimizer[GROUPS[group["kind"]].optimizer].append(group)
    return by_optimizer


def optimizers(objective: Objective, config: Train, dtype: torch.dtype) -> tuple[Muon, torch.optim.AdamW]:
    """Both, with the matrix products of Muon in `dtype`."""
    groups = parameter_groups(objective, config)
    coefficients = COEFFICIENTS[config.orthogonaliser]
    muon = Muon(groups["muon"], config.muon_lr, config.momentum, config.weight_decay, dtype, coefficients, config.row_normalise)
    betas = (config.adam_beta1, config.adam_beta2)
    return muon, torch.optim.AdamW(groups["adamw"], betas=betas, eps=1e-8, fused=True)
