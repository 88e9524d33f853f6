"""The peer of bench/training.py: the transformer that a good PyTorch engineer writes without knowing this project.

Learned positions, blocks with LayerNorm in front, multi-head attention by PyTorch's fused kernel, a GELU feed-forward,
a tied head, initialised as GPT-2; trained by fused AdamW with warm-up, cosine and clipping. It is as wide and as deep
as our network, and its feed-forward is as wide as makes the parameters equal.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WARMUP_STEPS = 50  # at most a tenth of a run
FINAL_LR_FRACTION = 0.1  # where the cosine ends
GRADIENT_CLIP = 1.0
WIDTH_MULTIPLE = 8  # of feed-forward widths, as tensor cores and vector units like them


class PlainBlock(nn.Module):
    def __init__(self, width: int, heads: int, feed_forward_width: int):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.feed_forward_norm = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, feed_forward_width, bias=False)
        self.down = nn.Linear(feed_forward_width, width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        split = self.query_key_value(self.attention_norm(x_BTD)).view(B, T, 3, self.heads, D // self.heads)
        query_BHTK, key_BHTK, value_BHTK = split.permute(2, 0, 3, 1, 4)
        mixed_BHTK = F.scaled_dot_product_attention(query_BHTK, key_BHTK, value_BHTK, is_causal=True)
        x_BTD = x_BTD + self.output(mixed_BHTK.transpose(1, 2).reshape(B, T, D))
        return x_BTD + self.down(F.gelu(self.up(self.feed_forward_norm(x_BTD))))


class PlainTransformer(nn.Module):
    """Tokens (B, T), T at most `sequence_length`, to logits (B, T, V)."""

    def __init__(
        self, vocabulary_size: int, width: int, layers: int, heads: int, sequence_length: int, feed_forward_width: int
    ):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary_size, width)
        self.positions = nn.Embedding(sequence_length, width)
        self.blocks = nn.ModuleList(PlainBlock(width, heads, feed_forward_width) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = self.tokens(tokens_BT) + self.positions.weight[: tokens_BT.shape[1]]
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return F.linear(self.norm(x_BTD), self.tokens.weight)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """N(0, 0.02²), and what ends in the residual stream smaller by 1/√(2 · layers) (Radford et al. 2019)."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                residual = name.endswith(("output.weight", "down.weight"))
                scale = 1 / math.sqrt(2 * len(self.blocks)) if residual else 1.0
                parameter.normal_(0, 0.02 * scale, generator=generator)


def equal_feed_forward_width(parameters: int, vocabulary_size: int, width: int, layers: int, sequence_length: int) -> int:
    """The feed-forward width, a multiple of 8, with which a `PlainTransformer` comes nearest to so many parameters.

    Nearer than 0.7 / `width` of them: 0.3 % at width 256.
    """
    outside_blocks = (vocabulary_size + sequence_length + 1) * width
    rest_of_block = 4 * width**2 + 2 * width  # attention, norms
    ideal = ((parameters - outside_blocks) / layers - rest_of_block) / (2 * width)
    return WIDTH_MULTIPLE * max(1, round(ideal / WIDTH_MULTIPLE))


def plain_optimizer(model: nn.Module, lr: float) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices and tables, none on vectors."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Of step 0 … `steps` − 1: linear warm-up to `peak`, then a cosine down to a tenth of it."""
    warmup = min(WARMUP_STEPS, steps // 10)
    if step < warmup:
        return peak * (step + 1) / warmup
    cosine = (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
    return peak * (FINAL_LR_FRACTION + (1 - FINAL_LR_FRACTION) * cosine)
