"""Score-first test-time training: after a chunk has been scored, and only then, the network learns from it.

The published kinds differ in what they step with (SGD #549, AdamW #861, orthogonalised gradients #999), in what learns
(all weights, feed-forward layers, LoRA adapters #1530) and in when they start afresh; here each of these is a setting of
its own. Every scored token counts once an epoch, whatever the sizes: where a chunk, or its rest, is shorter than the
training length, its window reaches back into the text before it, and only the new tokens count in the loss.
"""

import itertools
import math
from collections import defaultdict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairway.errors import InputError
from fairway.lm.model import GPT
from fairway.lm.parameters import layer_of, of_feed_forward, row_of
from fairway.score.config import Ttt
from fairway.score.lora import Adapters, adapted_names
from fairway.score.optimizers import OPTIMIZERS
from fairway.score.streaming import ALONE, Share

SURPRISING, EASY = 2.1, 1.75  # nats a token of a chunk, above and below which `adaptive_epochs` adds and drops one (#999)


class TestTimeTraining:
    """Changes the weights of `model` in place, one call a chunk.

    `targets` is the number of tokens of the text, which the header of a compressed text tells; only schedule "cosine"
    looks at it. Each of several ranks takes its share of the windows of a step, and all take the same step. Raises
    InputError when the settings leave nothing to learn.
    """

    def __init__(self, model: GPT, settings: Ttt, targets: int, ranks: Share = ALONE):
        self.model, self.settings, self.ranks = model, settings, ranks
        self.chunk = settings.chunk_tokens
        self.reset_documents = settings.reset == "document"
        self.chunks = math.ceil(targets / self.chunk)  # of the whole text, the last, never learned, among them
        self.learned = 0  # chunks, in all documents
        self.recent = np.empty(0, np.int64)  # the end of the text so far, or of the document, all of it scored
        self.names = learning_names(model, settings)
        named = dict(model.named_parameters())
        for name, parameter in named.items():
            parameter.requires_grad_(name in self.names)
        self.weights = [named[name] for name in self.names]
        lora = settings.parameters == "lora"
        self.adapters = Adapters(self.weights, settings.lora_rank, settings.lora_alpha) if lora else None
        self.starts = [] if lora else [weight.detach().clone() for weight in self.weights]  # adapters keep the base
        self.parameters = self.adapters.factors() if lora else self.weights
        self.optimizer = self._optimizer()

    def _optimizer(self) -> torch.optim.Optimizer:
        """One parameter group a rate; `multiplier` is what the rate of a chunk is multiplied by."""
        settings, groups = self.settings, defaultdict(list)
        multipliers = [block_multiplier(name, settings, len(self.model.blocks)) for name in self.names]
        for parameter, multiplier in zip(self.parameters, itertools.cycle(multipliers), strict=False):  # adapters: all A, all B
            groups[multiplier].append(parameter)
        grouped = [{"params": parameters, "multiplier": multiplier} for multiplier, parameters in groups.items()]
        return OPTIMIZERS[settings.optimizer](grouped, settings.lr, settings.momentum)

    def learn(self, scored: np.ndarray, nats: np.ndarray) -> None:
        """`scored`: a chunk's tokens with the one before them; `nats`: of the chunk's tokens. All of them scored already."""
        fresh = len(scored) - 1
        text = np.concatenate((self.recent if len(self.recent) else scored[:1], scored[1:])).astype(np.int64)
        length = self.model.architecture.sequence_length
        self.recent = text[-length:]
        batches = [tensor.split(self.settings.sequences_per_step) for tensor in windows(text, fresh, length)]
        rate = self.rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["multiplier"]
        for _ in range(self.epochs(nats)):
            for step in zip(*batches, strict=True):
                self._step(*step)
        self.learned += 1

    @torch.no_grad()
    def restart(self) -> None:
        """A document begins: weights, or adapters, and the optimizer's state back to the start. The schedule goes on."""
        if self.adapters is not None:
            self.adapters.restart()
        else:
            torch._foreach_copy_(self.weights, self.starts)
        self.optimizer.state.clear()
        self.recent = self.recent[:0]

    def rate(self) -> float:
        """The learning rate of the next chunk c of C: lr, or lr · (1 + cos(π·c/(C − 1)))/2, 0 at the last (#549)."""
        if self.settings.schedule == "constant":
            return self.settings.lr
        return self.settings.lr * (1 + math.cos(math.pi * self.learned / max(self.chunks - 1, 1))) / 2

    def epochs(self, nats: np.ndarray) -> int:
        """How often to go through a chunk: with `adaptive_epochs` one more, or less, by what its tokens have cost."""
        if not self.settings.adaptive_epochs:
            return self.settings.epochs
        mean = float(np.mean(nats, dtype=np.float64))
        return max(1, self.settings.epochs + (mean > SURPRISING) - (mean < EASY))

    def _step(self, inputs_BT: Tensor, targets_BT: Tensor, counted_BT: Tensor) -> None:
        """One step of the optimizer on the mean loss of the tokens that count, over all ranks."""
        gradients = self._gradients(inputs_BT, targets_BT, counted_BT)
        if self.adapters is not None:
            gradients = self.adapters.gradients(gradients)
        self.ranks.average_(gradients)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        if self.settings.gradient_clip:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.gradient_clip)
        if self.settings.weight_decay:  # decoupled (Loshchilov & Hutter 2019)
            for group in self.optimizer.param_groups:
                with torch.no_grad():
                    torch._foreach_mul_(group["params"], 1 - group["lr"] * self.settings.weight_decay)
        self.optimizer.step()
        if self.adapters is not None:
            self.adapters.merge()

    def _gradients(self, inputs_BT: Tensor, targets_BT: Tensor, counted_BT: Tensor) -> list[Tensor]:
        """Of the weights: this rank's part, so scaled that the mean over the ranks is the gradient of the mean loss."""
        own = slice(self.ranks.rank, None, self.ranks.size)
        if not len(inputs_BT[own]):
            return [torch.zeros_like(weight) for weight in self.weights]
        device = self.weights[0].device
        share = self.ranks.size / int(counted_BT.sum())
        inputs_BT, targets_BT, counted_BT = (tensor[own].to(device) for tensor in (inputs_BT, targets_BT, counted_BT))
        with torch.enable_grad():
            logits_NV = self.model.head(self.model.hidden(inputs_BT)[counted_BT])
            loss = share * F.cross_entropy(logits_NV, targets_BT[counted_BT], reduction="sum")
            return list(torch.autograd.grad(loss, self.weights, materialize_grads=True))


def windows(text: np.ndarray, fresh: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets and which targets count, (B, T) each, so that each of the last `fresh` tokens of a text counts once.

    Windows end every `length` tokens of the fresh ones and at the end. T is `length`, or all of a text that is shorter.
    """
    length = min(length, len(text) - 1)
    first = np.arange(0, fresh, length)  # fresh token that a window counts from
    end = len(text) - fresh + np.minimum(first + length, fresh)  # in the text
    index_BT = end[:, None] - length + np.arange(length)
    counted_BT = index_BT >= (len(text) - fresh + first)[:, None]
    return torch.from_numpy(text[index_BT - 1]), torch.from_numpy(text[index_BT]), torch.from_numpy(counted_BT)


def learning_names(model: GPT, settings: Ttt) -> list[str]:
    """Names of the tensors that change; of adapters the matrices they are added to. A tied head is untied for its adapter.

    #861, which chose the parameters of "feed_forward" by name, also had the scales of attention and of value embeddings in it.
    Raises InputError when there are none.
    """
    if settings.parameters == "lora":
        if "head" in settings.lora_targets:
            model.untie_lm_head()
        names = adapted_names(model, settings.lora_targets)
    else:
        names = [name for name, _ in model.named_parameters() if row_of(name).text_gradient]
        if settings.parameters == "feed_forward":
            names = list(filter(of_feed_forward, names))
    names = [name for name in names if (layer := layer_of(name)) is None or layer >= settings.freeze_blocks]
    if not names:
        raise InputError(
            f"ttt.parameters {settings.parameters} with ttt.freeze_blocks {settings.freeze_blocks} leaves nothing to learn "
            f"in {len(model.blocks)} blocks; lower ttt.freeze_blocks or choose other parameters or lora_targets"
        )
    return names


def block_multiplier(name: str, settings: Ttt, blocks: int) -> float:
    """From `first_block` at the first block that learns, linearly, to 1 at the last; 1 for what is in no block."""
    block = layer_of(name)
    if block is None:
        return 1.0
    depth = (block - settings.freeze_blocks) / max(blocks - settings.freeze_blocks - 1, 1)
    return settings.first_block + (1 - settings.first_block) * depth
