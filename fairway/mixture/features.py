"""What a mixture is told about the next token: of many known targets at once, and of one that is not known yet."""

from typing import NamedTuple

import numpy as np

Features = np.ndarray  # rows of `feature_type`, one per target, in the order of the text


def feature_type(mixture: str, vocabulary_size: int) -> np.dtype:
    """The fields that a mixture of this kind (`ngram.mixture`) reads, little-endian and without padding.

    Everything but `token`, `nats` and `paths` is known before the token is. The nodes of a path belong to the target, but
    the log-odds at each node depend on nothing after it (tree.py).
    """
    fields = [
        ("token", "<u2"),  # the target
        ("nats", "<f4"),  # −ln of the network's probability of the target
        ("entropy", "<f4"),  # of the network's distribution, in nats
    ]
    if mixture == "tree":
        # log-odds of going right at each node on the target's path: the network's, and with the continuous cache
        depth = (vocabulary_size - 1).bit_length()  # tree.depth, without the compiler that tree.py imports
        fields.append(("paths", "<f4", (depth, 2)))
        fields.append(("nearest", "<f4"))  # cosine of the nearest hidden state that the cache remembers, 0 for none
    if mixture == "tilt":
        fields.append(("match_nats", "<f4"))  # −ln of the network's probability of the match token (match.py)
    return np.dtype(fields)


class NextTokenInputs(NamedTuple):
    """What the network and its cache say about the next token, for a decoder."""

    neural: np.ndarray  # float64 (V,), the network's probabilities
    cached: np.ndarray  # float64 (V,), those of network and continuous cache together
    entropy: float  # of the network's distribution, in nats
    nearest: float  # cosine of the nearest hidden state that the cache remembers, 0 for none
