"""The compiled part of the tree mixture: what is known about the next token, a node's probability, and what is learned from it.

At a node experts say how likely the token goes right: the network, the network with its continuous cache, the longest match
in the text so far, the node's own history, and counts in contexts of the words so far and of the last tokens. Four mixers,
each with weights chosen by something else, add up the experts' log-odds, and a last one adds up the mixers (the two layers of
PAQ8; Mahoney 2005). Counts speak through maps: what came of it so far when a context had seen so much on either side.
"""

import math
from typing import NamedTuple

import numpy as np

from fairway.kernels import njit
from fairway.mixture.context_table import SUCCESSORS, count_of, mix, slot_of, token_of
from fairway.mixture.tree import middle

WORDS = 3  # contexts of the word so far: alone, with the word before it, with the two before it
NETWORK, CACHED, MATCH, UNIGRAM, CONTEXTS = range(5)  # experts; from CONTEXTS on one a context, words first
MIXERS = 4
CAP = 8  # counts on one side of a node, in the maps
LIMIT = 255.0  # decisions after which an adaptive probability slows down no more
MATCHES, NEAR, SURE = 16, 16, 32  # classes: length of the match, nearest cosine of the cache, the network's log-odds
LONGEST = 32  # tokens of a match that are compared
LONG = 6  # tokens that a match should have
PLACES_BITS = 20  # of the hash
FINAL_RATE = 0.025  # learning rate of the last mixer over that of the others
POSITION, AT, LENGTH, MATCHED = range(4)  # of State.now
THIS, BEFORE, TWICE = range(3)  # of State.word
SUREST = 15.0  # log-odds: a side keeps 2⁻²² at least, and the coder counts in 2⁻²⁴
NO_TOKEN = 1 << 16  # before the beginning of the text
SIDES = 0.4  # what a side's count is taken to be before any


class TreeConfig(NamedTuple):
    vocabulary_size: int
    contexts: int
    most: int  # contexts in the table
    learning_rate: float
    entropy_bins: int


class State(NamedTuple):
    """V vocabulary, D depth, C contexts, S successors, I experts, M mixers, L lengths, R rows."""

    ranks_V: np.ndarray  # place of each token among the leaves
    starts_V: np.ndarray  # whether a token begins a word
    last_V: np.ndarray  # where the text went on after each token's last occurrence, −1 for none
    place_H: np.ndarray  # the same after the last LONG tokens, by a hash of them; what stands there may be other tokens
    now: np.ndarray  # tokens in the text; where the match goes on (−1: none) and its length; contexts seen before, in a row
    word: np.ndarray  # uint64, fingerprints of the word so far, the one before, the one before that
    keys_C: np.ndarray  # uint64, of the contexts at hand
    ranks_CS: np.ndarray  # of their successors
    counts_CS: np.ndarray
    unigram_V2: np.ndarray  # times that each node was left to the left and to the right
    map_CKK: np.ndarray  # probability of right, by counts on both sides
    seen_CKK: np.ndarray
    match_L2: np.ndarray  # probability that a match is right, and how often it was asked, by length
    weight_RI: np.ndarray  # first layer, the rows of the four mixers one after the other
    first_M: np.ndarray  # their first rows
    final_RM: np.ndarray
    input_DI: np.ndarray  # on the path at hand, for learning
    side_DC2: np.ndarray
    row_DM: np.ndarray
    final_row_D: np.ndarray
    output_DM: np.ndarray


@njit(inline="always")
def squash(x):
    return 1 / (1 + math.exp(-min(max(x, -30.0), 30.0)))


@njit(inline="always")
def stretch(p):
    return math.log(p / (1 - p))


@njit
def look_up(state, text, entries, knobs):
    """The contexts of the next token, and what followed them."""
    now, keys, word = state.now, state.keys_C, state.word
    now[MATCHED] = 0
    keys[0] = mix(word[THIS], NO_TOKEN + 1)  # with what is no token: a word with one more token is no key
    keys[1] = mix(keys[0] ^ word[BEFORE], NO_TOKEN + 2)
    keys[2] = mix(keys[1] ^ word[TWICE], NO_TOKEN + 3)
    key = np.uint64(0x243F6A8885A308D3)
    for c in range(knobs.contexts):
        if c >= WORDS:
            back = now[POSITION] - 1 - (c - WORDS)
            key = mix(key, np.int64(text[back]) if back >= 0 else NO_TOKEN)
            keys[c] = key
        found = entries[slot_of(entries, keys[c]), 1]
        if found != 0 and now[MATCHED] == c - WORDS:
            now[MATCHED] += 1
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
    return min(total, CAP)


@njit(inline="always")
def class_of_nearest(nearest):
    return min(NEAR - 1, max(0, int(-2 * math.log(max(1 - nearest, 1e-9)))))


@njit(inline="always")
def class_of_entropy(entropy, knobs):
    """Bins of equal width up to ln(vocabulary)."""
    width = math.log(knobs.vocabulary_size) / knobs.entropy_bins
    return min(knobs.entropy_bins - 1, max(0, int(entropy / width)))


@njit
def forward(state, text, knobs, rank, level, lo, hi, levels, given_N2, nearest, entropy, odds_N):
    """Log-odds of going right at a node and at those below it on the way to the leaf `rank`, `levels` in all.

    `given_N2` are the network's, and those of network and cache together. Everything that learning needs is left behind.
    """
    now, ranks_CS, counts_CS, unigram, maps, match = (
        state.now, state.ranks_CS, state.counts_CS, state.unigram_V2, state.map_CKK, state.match_L2
    )  # fmt: skip
    first, weights, finals = state.first_M, state.weight_RI, state.final_RM
    inputs, sides, rows, final_rows, outputs = (
        state.input_DI, state.side_DC2, state.row_DM, state.final_row_D, state.output_DM
    )  # fmt: skip
    near, width = class_of_nearest(nearest), inputs.shape[1]
    matched = state.ranks_V[text[now[AT]]] if now[AT] >= 0 else -1
    for n in range(levels):
        half = middle(lo, hi)
        network = min(max(given_N2[n, 0], -12.0), 12.0)
        inputs[level, NETWORK] = network
        inputs[level, CACHED] = min(max(given_N2[n, 1], -12.0), 12.0) - network
        length = now[LENGTH] if lo <= matched < hi else 0
        hit = stretch(match[length, 0]) if length else 0.0
        inputs[level, MATCH] = hit if matched >= half else -hit
        inputs[level, UNIGRAM] = math.log((unigram[half, 1] + SIDES) / (unigram[half, 0] + SIDES))
        for c in range(knobs.contexts):
            a, b = counts_in(ranks_CS[c], counts_CS[c], lo, half), counts_in(ranks_CS[c], counts_CS[c], half, hi)
            sides[level, c, 0], sides[level, c, 1] = a, b
            inputs[level, CONTEXTS + c] = stretch(maps[c, a, b]) if a + b else 0.0
        rows[level, 0] = first[0] + level * (knobs.contexts - WORDS + 1) + now[MATCHED]
        rows[level, 1] = first[1] + min(length, MATCHES - 1) * NEAR + near
        rows[level, 2] = first[2] + near * SURE + min(SURE - 1, int(4 * abs(network)))
        rows[level, 3] = first[3] + half
        final_rows[level] = level * knobs.entropy_bins + class_of_entropy(entropy, knobs)
        a0, a1, a2, a3 = rows[level, 0], rows[level, 1], rows[level, 2], rows[level, 3]
        o0 = o1 = o2 = o3 = 0.0  # side by side: four sums that need not wait for each other
        for i in range(width):
            x = inputs[level, i]
            o0 += weights[a0, i] * x
            o1 += weights[a1, i] * x
            o2 += weights[a2, i] * x
            o3 += weights[a3, i] * x
        outputs[level, 0], outputs[level, 1], outputs[level, 2], outputs[level, 3] = o0, o1, o2, o3
        f = final_rows[level]
        total = finals[f, 0] * o0 + finals[f, 1] * o1 + finals[f, 2] * o2 + finals[f, 3] * o3
        odds_N[n] = min(max(total, -SUREST), SUREST)
        lo, hi = (half, hi) if rank >= half else (lo, half)
        level += 1


@njit
def backward(state, text, knobs, rank, odds_D):
    """Learn along the path to the leaf `rank`, just gone forward: gradient steps of ln p for every mixer by itself, and a step
    of every adaptive probability that has spoken."""
    now, unigram, maps, seen, match = state.now, state.unigram_V2, state.map_CKK, state.seen_CKK, state.match_L2
    weights, finals, rate = state.weight_RI, state.final_RM, knobs.learning_rate
    inputs, sides, rows, final_rows, outputs = (
        state.input_DI, state.side_DC2, state.row_DM, state.final_row_D, state.output_DM
    )  # fmt: skip
    matched = state.ranks_V[text[now[AT]]] if now[AT] >= 0 else -1
    lo, hi, level = 0, knobs.vocabulary_size, 0
    while hi - lo > 1:
        half = middle(lo, hi)
        right = 1 if rank >= half else 0
        missed = right - squash(odds_D[level])
        for m in range(MIXERS):
            output, row = outputs[level, m], rows[level, m]
            step = rate * (right - squash(output))
            for i in range(inputs.shape[1]):
                weights[row, i] += step * inputs[level, i]
            finals[final_rows[level], m] += FINAL_RATE * rate * missed * output
        if lo <= matched < hi:
            hit, asked = match[now[LENGTH], 0], match[now[LENGTH], 1] + 1
            held = 1.0 if (matched >= half) == right else 0.0
            match[now[LENGTH], 0] = min(max(hit + (held - hit) / min(asked + 3, LIMIT), 0.001), 0.9995)
            match[now[LENGTH], 1] = asked
        for c in range(knobs.contexts):
            a, b = sides[level, c, 0], sides[level, c, 1]
            if a + b:
                maps[c, a, b] = min(max(maps[c, a, b] + (right - maps[c, a, b]) / (seen[c, a, b] + 6), 0.0005), 0.9995)
                seen[c, a, b] = min(seen[c, a, b] + 1, LIMIT)
        unigram[half, right] += 1
        lo, hi = (half, hi) if right else (lo, half)
        level += 1


@njit
def common(text, one, other):
    """How many tokens before two places are the same, up to LONGEST - 1; `one` comes first."""
    length = 0
    while length < min(one, LONGEST - 1) and text[one - 1 - length] == text[other - 1 - length]:
        length += 1
    return length


@njit
def append(state, text, token):
    """The text goes on with `token`: words, and the match, which a longer one takes the place of while it is short."""
    now, word = state.now, state.word
    if state.starts_V[token]:
        word[TWICE], word[BEFORE], word[THIS] = word[BEFORE], word[THIS], np.uint64(1)
    word[THIS] = mix(word[THIS], token)
    goes_on = now[AT] >= 0 and text[now[AT]] == token
    text[now[POSITION]] = token
    now[POSITION] += 1
    end = now[POSITION]
    now[AT], now[LENGTH] = (now[AT] + 1, min(now[LENGTH] + 1, LONGEST - 1)) if goes_on else (-1, 0)
    key = np.uint64(0)
    for back in range(min(end, LONG)):
        key = mix(key, np.int64(text[end - 1 - back]))
    slot = np.int64(key >> np.uint64(64 - PLACES_BITS))
    if now[LENGTH] < LONG:
        for place in (state.place_H[slot], state.last_V[token]):
            if place >= 0 and common(text, place, end) > now[LENGTH]:
                now[AT], now[LENGTH] = place, common(text, place, end)
    state.place_H[slot] = state.last_V[token] = end
