"""The dtype of matrix products: bf16 where the hardware multiplies in bf16, unless `train.precision` says otherwise."""

import torch

from fairway.train.config import Train


def precision(config: Train, device: torch.device) -> torch.dtype:
    if config.precision == "auto":
        return default_precision(device)
    return torch.bfloat16 if config.precision == "bf16" else torch.float32


def default_precision(device: torch.device) -> torch.dtype:
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32
