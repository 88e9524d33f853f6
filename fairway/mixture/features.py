"""What a mixture is told about the next token: the network's side of it."""

from typing import NamedTuple

import numpy as np


class NextTokenInputs(NamedTuple):
    """Before the token is known, for a decoder."""

    neural: np.ndarray  # float64 (V,), the network's probabilities
    cached: np.ndarray  # float64 (V,), those of network and continuous cache together
    entropy: float  # of the network's distribution, in nats
    nearest: float  # cosine of the nearest hidden state that the cache remembers, 0 for none
    hint: int  # the token that the text so far suggests (hints.py)
    hint_order: int  # length of the context behind the hint, 0 where there is none


class Features(NamedTuple):
    """Of N targets in a row, recorded while eval_ttt scored the stream.

    Everything but `tokens`, `nats` and `paths` is known before the token is. A path's nodes belong to the target, but what is
    said at each node depends on nothing after it (tree.py).
    """

    tokens: np.ndarray  # uint16 (N,), the targets
    nats: np.ndarray  # float (N,), −ln of the network's probability of each
    entropy: np.ndarray  # float (N,)
    hints: np.ndarray  # uint16 (N,)
    hint_nats: np.ndarray  # float (N,), −ln of the network's probability of the hint
    hint_orders: np.ndarray  # uint8 (N,)
    paths: np.ndarray  # float32 (N, depth, 2), log-odds of going right: the network's, and with the continuous cache
    nearest: np.ndarray  # float32 (N,)

    def part(self, targets: slice) -> "Features":
        return Features(*(values[targets] for values in self))
