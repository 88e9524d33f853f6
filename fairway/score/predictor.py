"""The predictor that a decoder runs: the next token's distribution, then the token; nothing else gets in (DESIGN 3.1).

Observing is the only way a token reaches any state: key/value cache, weights, counts, mixture. A chunk is learned just
before the first distribution that comes after it, so the last chunk of a text is never learned.
"""

import math

import numpy as np
import torch

from fairway.lm.model import GPT
from fairway.score.config import Settings
from fairway.score.mixture import NgramMixture
from fairway.score.streaming import Stream, entropy
from fairway.score.ttt import TestTimeTraining


class Predictor:
    """Starts after the first BOS. Changes the weights of `model` when the settings train at test time."""

    def __init__(self, model: GPT, settings: Settings):
        self.stream = Stream(model, settings.eval.context)
        self.chunk = settings.ttt.chunk_tokens
        self.training = TestTimeTraining(model, settings.ttt) if settings.ttt.optimizer != "none" else None
        vocabulary_size = model.architecture.vocabulary_size
        self.mixture = NgramMixture(settings.ngram, vocabulary_size) if settings.ngram.mixture != "none" else None
        self.recent = [model.architecture.bos]  # tokens since the last chunk end, the one before them first
        self._neural = np.empty(0)
        self._entropy = 0.0
        self._fed = False

    def distribution(self) -> np.ndarray:
        """Probabilities (V,) float64 of the next token, given all tokens observed."""
        if not self._fed:
            self._feed()
        if self.mixture is None:
            return self._neural
        return self.mixture.distribution(self._neural, self._entropy)

    def observe(self, token: int) -> None:
        if self.mixture is not None:
            nats = -math.log(self._neural[token])
            self.mixture.score(np.array([token]), np.array([nats]), np.array([self._entropy]))
        self.recent.append(token)
        self._fed = False

    def _feed(self) -> None:
        if self.training is None:
            del self.recent[:-1]
        elif len(self.recent) == self.chunk + 1:
            self.training.learn(np.array(self.recent))
            del self.recent[:-1]
        log_probabilities = self.stream.feed(torch.tensor(self.recent[-1:]))[0]
        self._entropy = float(entropy(log_probabilities))
        probabilities = log_probabilities.double().exp().numpy()
        self._neural = probabilities / probabilities.sum()  # the softmax was rounded to float32
        self._fed = True
