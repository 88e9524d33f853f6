"""The beginning of the validation stream that is coded as text, cut where the cut cannot change the tokens before it."""

import numpy as np

from fairway.errors import InputError
from fairway.text.tokenizer import Tokenizer


def cut(tokens: np.ndarray, tokenizer: Tokenizer, wanted: int) -> tuple[np.ndarray, bytes]:
    """The first tokens, at most `wanted` after BOS, and the text that they spell, which encodes to exactly these tokens.

    BPE pieces do not cross a space, so the text can be cut before a token that begins with a space, or before a BOS.
    Raises InputError if there is no such place.
    """
    stream = tokens[: wanted + 2]
    for end in range(min(wanted + 1, len(tokens)), 1, -1):
        at_end = end == len(tokens)
        if at_end or tokenizer.pieces[stream[end]][:1] in (b" ", b"\0"):
            text = tokenizer.decode(stream[:end])
            if np.array_equal(tokenizer.encode(text.decode("utf-8", "replace")), stream[:end]):
                return stream[:end], text
    raise InputError(f"certify.tokens: no place to cut the first {wanted:,} validation tokens; raise it")
