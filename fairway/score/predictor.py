"""The predictor that a decoder runs: the next token's distribution, then the token; nothing else gets in (DESIGN 3.1).

Observing is the only way that a token reaches any state: key/value cache, continuous cache, weights, counts, mixture. A chunk
is learned just before the first distribution that comes after it, so the last chunk of a text is never learned.
"""

from array import array

import numpy as np
import torch

from fairway.lm.decoder import Decoder
from fairway.lm.model import GPT
from fairway.mixture.features import NextTokenInputs
from fairway.mixture.protocol import mixture_of
from fairway.score.config import Settings
from fairway.score.features import cache_of, tree_of
from fairway.score.ttt import TestTimeTraining


class Predictor:
    """Starts after the first BOS. Changes the weights of `model` when the settings train at test time.

    `starts` (V,) says which tokens begin a word, `targets` how many tokens the whole text has after the first BOS.
    """

    def __init__(self, model: GPT, settings: Settings, starts: np.ndarray, targets: int):
        a, self.model, self.settings = model.architecture, model, settings
        ranks = tree_of(model) if settings.ngram.mixture == "tree" else np.arange(a.vocabulary_size)
        self.mixture = mixture_of(settings.ngram, ranks, starts, a.bos)
        self.ranks, self.leaves = self.mixture.ranks, self.mixture.leaves
        self.cache = cache_of(settings.cache, a.vocabulary_size, settings.ngram.mixture)
        training = settings.ttt.optimizer != "none"
        self.training = TestTimeTraining(model, settings.ttt, targets) if training else None
        self.decoder = self._new_decoder()  # after the above, which may give the network a new head
        self.text = array("H", [a.bos])
        self.nats: list[float] = []  # of the chunk so far
        self.hidden_D = np.empty(0, np.float32)
        self.inputs: NextTokenInputs | None = None

    def distribution(self) -> np.ndarray:
        """Probabilities (V,) float64 of the next token, given all tokens observed."""
        self._prepare()
        return self.mixture.distribution()

    def right(self, lo: int, hi: int, level: int) -> float:
        """Probability that the next token is in the right half of a node of the tree, given that it is in the node."""
        self._prepare()
        return self.mixture.right(lo, hi, level)

    def observe(self, token: int) -> None:
        self._prepare()
        if self.training is not None:
            self.nats.append(-float(np.log(self.inputs.neural[token])))
        self.mixture.observe(token)
        if self.cache is not None:
            self.cache.remember(torch.from_numpy(self.hidden_D)[None], torch.tensor([token]))
        self.text.append(token)
        self.inputs = None

    def _prepare(self) -> None:
        if self.inputs is not None:
            return
        self._learn()
        self._rebuild()
        self.hidden_D = self.decoder.feed(self.text[-1])
        self.inputs = self._next_inputs()
        self.mixture.prepare(self.inputs)

    def _learn(self) -> None:
        """Test-time training where a chunk, or with resets a document, has come to its end."""
        training, scored = self.training, len(self.nats)
        if training is None or not scored:
            return
        if training.reset_documents and self.text[-1] == self.model.architecture.bos:
            training.restart()
        elif scored == training.chunk:
            training.learn(np.array(self.text[-scored - 1 :]), np.array(self.nats, np.float32))
        else:
            return
        self.nats.clear()

    def _new_decoder(self) -> Decoder:
        return Decoder(self.model, self.settings.eval.context, self.settings.eval.reset == "document")

    def _rebuild(self) -> None:
        """Where a segment begins: a new key/value cache, of the inputs before."""
        at, settings = len(self.text) - 1, self.settings.eval
        if settings.segment_tokens and at and at % settings.segment_tokens == 0:
            self.decoder = self._new_decoder()
            for token in self.text[max(0, at - settings.context) : at]:
                self.decoder.feed(token)

    def _next_inputs(self) -> NextTokenInputs:
        neural, entropy = softmax(self.decoder.logits(self.hidden_D))
        cached, nearest = neural, 0.0
        if self.cache is not None:
            found, nearest = self.cache.look(self.hidden_D)
            if nearest:
                cached = neural + self.settings.cache.weight * (found - neural)
        return NextTokenInputs(neural, cached, entropy, nearest)


def softmax(logits: np.ndarray) -> tuple[np.ndarray, float]:
    """Probabilities in float64, and their entropy in nats."""
    odds = logits.astype(np.float64) - logits.max()
    probabilities = np.exp(odds)
    total = probabilities.sum()
    probabilities /= total
    return probabilities, float(np.log(total) - probabilities @ odds)
