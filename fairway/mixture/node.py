"""The compiled part of the tree mixture: its state, the probability at a node, and what is learned from a token.

At a node of the vocabulary tree, experts say how likely the next token is in the right half: the network, the network with
its continuous cache, the longest match in the text so far, the node's own history, and counts in contexts of the words so far
and of the last tokens. Four mixers, each with weights chosen by something else, add up the experts' log-odds, and a final
mixer adds up the four (the two layers of PAQ8; Mahoney 2005). Counts are turned into probabilities by adaptive maps: what
came of it so far when a context had seen so much on either side.
"""

import math
from typing import NamedTuple

import numpy as np

from fairway.kernels import njit
from fairway.mixture.config import Ngram
from fairway.mixture.context_table import SUCCESSORS, count_of, fingerprint, slot_of, token_of
from fairway.mixture.tree import depth, middle

# Experts; from CONTEXTS on one per context, those of words first.
NETWORK, CACHED, MATCH, UNIGRAM, CONTEXTS = range(5)
WORD_CONTEXTS = 3  # the word so far: alone, with the word before it, with the two before it
MIXERS = 4
# Weights in the first layer at the beginning: network, cache, match, unigram; a context.
START_WEIGHTS, CONTEXT_START_WEIGHT = (1.0, 0.5, 0.2, 0.05), 0.05
FINAL_RATE = 0.025  # learning rate of the final mixer over that of the others
MAX_LOG_ODDS = 15.0  # of a node: either side keeps 2⁻²² at least, and the coder counts in 2⁻²⁴
MAX_SIDE_COUNT = 8  # on one side of a node, in the adaptive maps
PRIOR_COUNT = 0.4  # what the count of a side is taken to be before any
MAX_DECISIONS = 255.0  # after which an adaptive probability slows down no more
# Classes that choose weights: length of the match, cosine of the nearest cached state, the network's log-odds.
LENGTH_CLASSES, COSINE_CLASSES, ODDS_CLASSES = 16, 16, 32
MAX_MATCH = 32  # tokens of a match that are compared
SHORT_MATCH = 6  # tokens below which a longer match is looked for
MATCH_START = 0.6  # probability that a match is right, at the beginning
HASH_BITS = 20  # of the table of places by their last SHORT_MATCH tokens
NO_TOKEN = 1 << 16  # before the beginning of the text
# Entries of State.cursor: tokens in the text; where the match goes on (−1: none) and its length; contexts of tokens seen
# before, from the shortest on, until the first that was not.
TEXT_LENGTH, MATCH_AT, MATCH_LENGTH, ORDERS_SEEN = range(4)
CURRENT_WORD, PREVIOUS_WORD, SECOND_PREVIOUS_WORD = range(3)  # entries of State.word


class TreeConfig(NamedTuple):
    vocabulary_size: int
    contexts: int
    table_entries: int  # contexts in the table, at most
    learning_rate: float
    entropy_bins: int


class State(NamedTuple):
    """V vocabulary, D depth, C contexts, S successors, I experts, M mixers, L lengths, K counts, H hashes, R rows of weights.

    From `input_DI` on: what `forward` leaves behind for `backward`, by level of the path at hand.
    """

    ranks_V: np.ndarray  # place of each token among the leaves
    starts_V: np.ndarray  # whether a token begins a word
    last_V: np.ndarray  # where the text went on after each token's last occurrence, −1 for none
    place_H: np.ndarray  # the same after the last SHORT_MATCH tokens, by a hash of them; other tokens may share it
    cursor: np.ndarray  # int64, see TEXT_LENGTH and the next
    word: np.ndarray  # uint64, fingerprints of the word so far, the one before, the one before that
    keys_C: np.ndarray  # uint64, fingerprints of the contexts of the next token
    ranks_CS: np.ndarray  # leaves of their successors
    counts_CS: np.ndarray
    unigram_V2: np.ndarray  # times that each node was left to the left and to the right
    map_CKK: np.ndarray  # probability of right, by counts on both sides
    seen_CKK: np.ndarray  # decisions behind it
    match_L2: np.ndarray  # probability that a match is right, and how often it was asked, by length
    weight_RI: np.ndarray  # first layer, the rows of the four mixers one after the other
    first_M: np.ndarray  # their first rows
    final_RM: np.ndarray  # final mixer
    input_DI: np.ndarray  # log-odds of the experts
    side_DC2: np.ndarray  # counts of each context on both sides
    row_DM: np.ndarray  # rows of weights in use
    final_row_D: np.ndarray
    output_DM: np.ndarray  # log-odds of the mixers


def tree_config(settings: Ngram, vocabulary_size: int) -> TreeConfig:
    contexts = WORD_CONTEXTS + settings.max_order - 1  # order n looks at n − 1 tokens; order 1 is the node's own history
    return TreeConfig(vocabulary_size, contexts, settings.table_entries, settings.learning_rate, settings.entropy_bins)


def start(config: TreeConfig, ranks: np.ndarray, starts: np.ndarray) -> State:
    """Nothing seen yet: the mixture begins near to the network with its cache."""
    V, C, D = config.vocabulary_size, config.contexts, depth(config.vocabulary_size)
    counts = np.arange(MAX_SIDE_COUNT + 1)
    map_KK = (counts[None, :] + PRIOR_COUNT) / (counts[:, None] + counts[None, :] + 2 * PRIOR_COUNT)
    sizes = D * (C - WORD_CONTEXTS + 1), LENGTH_CLASSES * COSINE_CLASSES, COSINE_CLASSES * ODDS_CLASSES, V
    rows = np.cumsum([0, *sizes])
    return State(
        ranks_V=ranks,
        starts_V=starts,
        last_V=np.full(V, -1),
        place_H=np.full(1 << HASH_BITS, -1),
        cursor=np.array([0, -1, 0, 0]),
        word=np.ones(3, np.uint64),
        keys_C=np.zeros(C, np.uint64),
        ranks_CS=np.zeros((C, SUCCESSORS), np.int64),
        counts_CS=np.zeros((C, SUCCESSORS), np.int64),
        unigram_V2=np.zeros((V, 2)),
        map_CKK=np.tile(map_KK, (C, 1, 1)),
        seen_CKK=np.zeros((C, MAX_SIDE_COUNT + 1, MAX_SIDE_COUNT + 1)),
        match_L2=np.tile((MATCH_START, 0.0), (MAX_MATCH, 1)),
        weight_RI=np.tile((*START_WEIGHTS, *(CONTEXT_START_WEIGHT,) * C), (rows[-1], 1)),
        first_M=rows[:-1],
        final_RM=np.full((D * config.entropy_bins, MIXERS), 1 / MIXERS),
        input_DI=np.zeros((D, CONTEXTS + C)),
        side_DC2=np.zeros((D, C, 2), np.int64),
        row_DM=np.zeros((D, MIXERS), np.int64),
        final_row_D=np.zeros(D, np.int64),
        output_DM=np.zeros((D, MIXERS)),
    )


@njit(inline="always")
def squash(x):
    return 1 / (1 + math.exp(-min(max(x, -30.0), 30.0)))


@njit(inline="always")
def stretch(p):
    return math.log(p / (1 - p))


@njit
def look_up(state, text, entries, config):
    """Find the contexts of the next token and what has followed them so far."""
    cursor, keys, word = state.cursor, state.keys_C, state.word
    cursor[ORDERS_SEEN] = 0

    # The word contexts. Each mixes in a number that no token has, so that a context's key is never the fingerprint of a word
    # with one more token.
    keys[0] = fingerprint(word[CURRENT_WORD], NO_TOKEN + 1)
    keys[1] = fingerprint(keys[0] ^ word[PREVIOUS_WORD], NO_TOKEN + 2)
    keys[2] = fingerprint(keys[1] ^ word[SECOND_PREVIOUS_WORD], NO_TOKEN + 3)

    key = np.uint64(0x243F6A8885A308D3)
    for c in range(config.contexts):
        # The token contexts go backwards through the text: each is the one before it with one older token.
        if c >= WORD_CONTEXTS:
            back = cursor[TEXT_LENGTH] - 1 - (c - WORD_CONTEXTS)
            key = fingerprint(key, np.int64(text[back]) if back >= 0 else NO_TOKEN)
            keys[c] = key

        # Unpack the table's entry. Successors are kept as leaves of the tree, so that a node can ask which of its halves
        # they are in; those with count 0 are not there.
        found = entries[slot_of(entries, keys[c]), 1]
        if found != 0 and cursor[ORDERS_SEEN] == c - WORD_CONTEXTS:
            cursor[ORDERS_SEEN] += 1
        for k in range(SUCCESSORS):
            state.counts_CS[c, k] = count_of(found, k)
            state.ranks_CS[c, k] = state.ranks_V[token_of(found, k)] if state.counts_CS[c, k] else 0


@njit(inline="always")
def counts_in(ranks_S, counts_S, lo, hi):
    """How often a context was followed by leaves of a range."""
    total = 0
    for k in range(SUCCESSORS):
        if lo <= ranks_S[k] < hi:
            total += counts_S[k]
    return min(total, MAX_SIDE_COUNT)


@njit(inline="always")
def class_of_cosine(nearest):
    return min(COSINE_CLASSES - 1, max(0, int(-2 * math.log(max(1 - nearest, 1e-9)))))


@njit(inline="always")
def class_of_entropy(entropy, config):
    """Bins of equal width up to ln(vocabulary)."""
    width = math.log(config.vocabulary_size) / config.entropy_bins
    return min(config.entropy_bins - 1, max(0, int(entropy / width)))


@njit(inline="always")
def forward(state, text, config, rank, level, lo, hi, levels, given_N2, nearest, entropy, odds_N):
    """Log-odds of going right at a node and at those below it on the way to the leaf `rank`, `levels` at most, into `odds_N`.

    `given_N2` are the network's, and those of network and cache together. Everything that learning needs is left behind.
    """
    cursor, ranks_CS, counts_CS, unigram, maps, match = (
        state.cursor, state.ranks_CS, state.counts_CS, state.unigram_V2, state.map_CKK, state.match_L2
    )  # fmt: skip
    first, weights, finals = state.first_M, state.weight_RI, state.final_RM
    inputs, sides, rows, final_rows, outputs = (
        state.input_DI, state.side_DC2, state.row_DM, state.final_row_D, state.output_DM
    )  # fmt: skip
    cosine_class, width = class_of_cosine(nearest), inputs.shape[1]
    matched = state.ranks_V[text[cursor[MATCH_AT]]] if cursor[MATCH_AT] >= 0 else -1  # the leaf that the match predicts
    for n in range(levels):
        if hi - lo == 1:
            break
        half = middle(lo, hi)

        # Network and cache. The second input is the difference that the cache makes, so that its weight says how far the
        # cache is believed.
        network = min(max(given_N2[n, 0], -12.0), 12.0)
        inputs[level, NETWORK] = network
        inputs[level, CACHED] = min(max(given_N2[n, 1], -12.0), 12.0) - network

        # The match speaks only in nodes that hold the leaf it predicts, with the confidence that matches of its length have
        # earned; elsewhere it counts as no match.
        length = cursor[MATCH_LENGTH] if lo <= matched < hi else 0
        hit = stretch(match[length, 0]) if length else 0.0
        inputs[level, MATCH] = hit if matched >= half else -hit

        # How often the text has gone right and left here, whatever the context.
        inputs[level, UNIGRAM] = math.log((unigram[half, 1] + PRIOR_COUNT) / (unigram[half, 0] + PRIOR_COUNT))

        # Each context: its counts on the two sides choose an entry of its map, which holds the probability of right that such
        # counts have turned out to mean. A context without successors in this node says nothing.
        for c in range(config.contexts):
            a, b = counts_in(ranks_CS[c], counts_CS[c], lo, half), counts_in(ranks_CS[c], counts_CS[c], half, hi)
            sides[level, c, 0], sides[level, c, 1] = a, b
            inputs[level, CONTEXTS + c] = stretch(maps[c, a, b]) if a + b else 0.0

        # The rows of weights in use. The mixers choose theirs by (level, longest order seen), (length of the match, cosine of
        # the nearest cached state), (that cosine, how sure the network is) and the node itself; the final mixer by
        # (level, entropy of the network's distribution).
        rows[level, 0] = first[0] + level * (config.contexts - WORD_CONTEXTS + 1) + cursor[ORDERS_SEEN]
        rows[level, 1] = first[1] + min(length, LENGTH_CLASSES - 1) * COSINE_CLASSES + cosine_class
        rows[level, 2] = first[2] + cosine_class * ODDS_CLASSES + min(ODDS_CLASSES - 1, int(4 * abs(network)))
        rows[level, 3] = first[3] + half
        final_rows[level] = level * config.entropy_bins + class_of_entropy(entropy, config)

        # First layer: four dot products of weights and inputs, side by side because the sums need not wait for each other.
        a0, a1, a2, a3 = rows[level, 0], rows[level, 1], rows[level, 2], rows[level, 3]
        o0 = o1 = o2 = o3 = 0.0
        for i in range(width):
            x = inputs[level, i]
            o0 += weights[a0, i] * x
            o1 += weights[a1, i] * x
            o2 += weights[a2, i] * x
            o3 += weights[a3, i] * x
        outputs[level, 0], outputs[level, 1], outputs[level, 2], outputs[level, 3] = o0, o1, o2, o3

        # Second layer, and one level down on the way to the leaf.
        f = final_rows[level]
        total = finals[f, 0] * o0 + finals[f, 1] * o1 + finals[f, 2] * o2 + finals[f, 3] * o3
        odds_N[n] = min(max(total, -MAX_LOG_ODDS), MAX_LOG_ODDS)
        lo, hi = (half, hi) if rank >= half else (lo, half)
        level += 1


@njit(inline="always")
def backward(state, text, config, rank, odds_D):
    """Learn along the path to the leaf `rank`, for which `forward` has just run from the root: a gradient step of ln p for
    every mixer by itself, and a step of every adaptive probability that was used."""
    cursor, unigram, maps, seen, match = state.cursor, state.unigram_V2, state.map_CKK, state.seen_CKK, state.match_L2
    weights, finals, rate = state.weight_RI, state.final_RM, config.learning_rate
    inputs, sides, rows, final_rows, outputs = (
        state.input_DI, state.side_DC2, state.row_DM, state.final_row_D, state.output_DM
    )  # fmt: skip
    matched = state.ranks_V[text[cursor[MATCH_AT]]] if cursor[MATCH_AT] >= 0 else -1
    lo, hi, level = 0, config.vocabulary_size, 0
    while hi - lo > 1:
        half = middle(lo, hi)
        right = 1 if rank >= half else 0

        # Mixers. With p = squash(Σ wᵢ·xᵢ), the gradient of ln p of what happened is (right − p)·xᵢ. Every mixer of the first
        # layer follows its own p, not that of the final mixer: no gradient flows through the second layer.
        missed = right - squash(odds_D[level])
        for m in range(MIXERS):
            output, row = outputs[level, m], rows[level, m]
            step = rate * (right - squash(output))
            for i in range(inputs.shape[1]):
                weights[row, i] += step * inputs[level, i]
            finals[final_rows[level], m] += FINAL_RATE * rate * missed * output

        # The match, where it had something to say: its probability moves towards 1 or 0 by 1/(times asked + 3), a running
        # mean that never becomes slower than MAX_DECISIONS allows.
        if lo <= matched < hi:
            hit, asked = match[cursor[MATCH_LENGTH], 0], match[cursor[MATCH_LENGTH], 1] + 1
            held = 1.0 if (matched >= half) == right else 0.0
            match[cursor[MATCH_LENGTH], 0] = min(max(hit + (held - hit) / min(asked + 3, MAX_DECISIONS), 0.001), 0.9995)
            match[cursor[MATCH_LENGTH], 1] = asked

        # The maps' entries that were used, in the same way.
        for c in range(config.contexts):
            a, b = sides[level, c, 0], sides[level, c, 1]
            if a + b:
                maps[c, a, b] = min(max(maps[c, a, b] + (right - maps[c, a, b]) / (seen[c, a, b] + 6), 0.0005), 0.9995)
                seen[c, a, b] = min(seen[c, a, b] + 1, MAX_DECISIONS)

        unigram[half, right] += 1
        lo, hi = (half, hi) if right else (lo, half)
        level += 1


@njit
def common(text, one, other):
    """How many tokens before two places are the same, up to MAX_MATCH - 1; `one` comes first."""
    length = 0
    while length < min(one, MAX_MATCH - 1) and text[one - 1 - length] == text[other - 1 - length]:
        length += 1
    return length


@njit
def append(state, text, token):
    """The text goes on with `token`: move on the words and the match."""
    cursor, word = state.cursor, state.word

    # A token that begins a word ends the one before it.
    if state.starts_V[token]:
        word[SECOND_PREVIOUS_WORD], word[PREVIOUS_WORD] = word[PREVIOUS_WORD], word[CURRENT_WORD]
        word[CURRENT_WORD] = np.uint64(1)
    word[CURRENT_WORD] = fingerprint(word[CURRENT_WORD], token)

    # A match that predicted the token goes on and is one token longer; another one is dropped.
    goes_on = cursor[MATCH_AT] >= 0 and text[cursor[MATCH_AT]] == token
    text[cursor[TEXT_LENGTH]] = token
    cursor[TEXT_LENGTH] += 1
    end = cursor[TEXT_LENGTH]
    cursor[MATCH_AT], cursor[MATCH_LENGTH] = (
        (cursor[MATCH_AT] + 1, min(cursor[MATCH_LENGTH] + 1, MAX_MATCH - 1)) if goes_on else (-1, 0)
    )

    # While the match is short, a longer one takes its place: where the text went on after the last SHORT_MATCH tokens came
    # last (by their hash, so their tokens are compared), or after this token did.
    key = np.uint64(0)
    for back in range(min(end, SHORT_MATCH)):
        key = fingerprint(key, np.int64(text[end - 1 - back]))
    slot = np.int64(key >> np.uint64(64 - HASH_BITS))
    if cursor[MATCH_LENGTH] < SHORT_MATCH:
        for place in (state.place_H[slot], state.last_V[token]):
            if place >= 0 and common(text, place, end) > cursor[MATCH_LENGTH]:
                cursor[MATCH_AT], cursor[MATCH_LENGTH] = place, common(text, place, end)
    state.place_H[slot] = state.last_V[token] = end
