"""The compiled part of the weight coder: context mixing (PAQ; Mahoney 2005) and a binary arithmetic coder in one loop.

A weight is a walk of yes-or-no decisions down a tree over the integers, about as many as it has bits. Several guesses at
the centre and the width of its distribution each have adaptive probabilities for every decision; a learnt logistic mixture
joins them. Every decision's model depends on the decision before, whereas constriction codes batches whose models are
known beforehand: so the arithmetic coder lives in here. All is integers or IEEE sums, products and quotients in a fixed
order, never exp, log or fastmath: all machines decode alike. One walk codes and decodes, so the two cannot drift apart.
"""

from itertools import accumulate
from operator import mul
from typing import NamedTuple

import numpy as np

from fairway.kernels import njit

# Powers by repeated multiplication: libm's exp and pow are not the same on all machines.
WIDTH = np.array(list(accumulate([1.0905077326652577] * 127, mul, initial=2.0**-6)))  # 2^(i/8 − 6)
UNIT = 48  # WIDTH[UNIT] is 1
_ODDS = np.array(list(accumulate([1.0039138893383475] * 2816, mul, initial=1.0)))  # exp(i/256), i/256 up to 11
_LOGISTIC = np.concatenate([1 / (1 + _ODDS[:0:-1]), _ODDS / (1 + _ODDS)])
SQUASH = np.clip(_LOGISTIC * 65536, 1, 65535).astype(np.uint16)  # [(x + 11) · 256] → probability · 2^16
STRETCH = ((np.searchsorted(_LOGISTIC, (np.arange(4096) + 0.5) / 4096) - 2816) / 256).astype(np.float32)  # its inverse

GUESSES = 7  # see `_guess`
CENTRES, WIDTHS = 49, 16  # bins of a guess: 1/8 and a factor 2^(1/4) apart, in standard deviations of the matrix
WIDTH_BIN = np.searchsorted(WIDTH[UNIT - 15 : UNIT + 15 : 2], (np.arange(1024) + 0.5) / 128)  # [width · 128]
RATE = (65536 / (np.arange(1024) + 1.5)).astype(np.int64)  # [decisions seen], of an adaptive probability, · 2^16
SEEN = 8  # decisions that the Gaussian start counts as
RIDGE = 300.0  # rows that the regression's start, white noise, counts as
DEVIATION = 1.2533141373155001  # standard deviation of a Gaussian over its mean absolute value
MASK = 2**48 - 1  # the arithmetic coder's registers have 48 bits

# Indices into the arrays of Memory: column_3C, row_6, guess_5I, line_3D, coder.
TREND, WIDE, MISS = range(3)
LEFT, SECOND, LONG, COUNT, MISFIT, ERROR = range(6)
ROW_START = (0.0, 0.0, 1.0, 16.0, 1.0, 1.0)
FEATURE, COVARIANCE, VARIANCE, CENTRE, SPREAD = range(5)
MEAN, RESIDUAL, VALUE = range(3)
LOW, HIGH, CODE, AT = range(4)


class Layout(NamedTuple):
    """Which guesses are used, and how fast is learnt."""

    first: int
    last: int
    limit: int  # decisions after which an adaptive probability no longer slows down
    rate: float  # of the mixture's weights
    start: float  # of the mixture's weights


class Memory(NamedTuple):
    """All that the walk knows and learns. Values, means and widths are in standard deviations of the matrix.

    R rows, C columns, I guesses, N nodes of the tree, K = N times the grids of the trellis; D = C, 0 without regression.
    """

    tree_N3: np.ndarray  # child 0, child 1 (a node, or ~rank), the first rank that belongs to child 1
    counter: np.ndarray  # uint32 (I · CENTRES · WIDTHS · K,): probability of child 1 in 22 bits, decisions seen in 10
    weight_KI: np.ndarray  # float32, of the mixture
    stretched_I: np.ndarray  # float32, of the decision at hand
    place_I: np.ndarray  # in `counter`, of the weight at hand
    guess_5I: np.ndarray  # FEATURE, …: centres of 2 to 4 are feature · covariance / variance, both running sums
    column_3C: np.ndarray  # running mean, width, and width of the regression's errors relative to their rows'
    row_6: np.ndarray  # two weights to the left; width, and weights in it; widths of the errors of guesses 4 and 5
    state: np.ndarray  # uint8 (max(R, C),), of the trellis
    lower_DD: np.ndarray  # float32, [j] is column j of L in A = L D Lᵀ, see `_take_row`
    diagonal_D: np.ndarray
    line_3D: np.ndarray  # float32, of the row at hand: means given what is coded of it, errors of these, values
    coder: np.ndarray  # of the arithmetic coder: interval, the decoder's code, bytes so far


def memory(tree_N3: np.ndarray, start: np.ndarray, layout: Layout, shape: tuple[int, int], regressing: bool) -> Memory:
    """Nothing seen yet. `start` int64 (CENTRES, WIDTHS, K): the probabilities of child 1, times 2^22."""
    C = shape[1]
    D = C if regressing else 0
    return Memory(
        tree_N3,
        counter=np.tile((start.ravel() << 10 | SEEN).astype(np.uint32), GUESSES),
        weight_KI=np.full((start.shape[2], GUESSES), layout.start, np.float32),
        stretched_I=np.zeros(GUESSES, np.float32),
        place_I=np.zeros(GUESSES, np.int64),
        guess_5I=np.repeat([[0.0], [0.0], [64.0], [0.0], [1.0]], GUESSES, axis=1),
        column_3C=np.repeat([[0.0], [1.0], [1.0]], C, axis=1),
        row_6=np.zeros(len(ROW_START)),
        state=np.zeros(max(shape), np.uint8),
        lower_DD=np.zeros((D, D), np.float32),
        diagonal_D=np.full(D, RIDGE),
        line_3D=np.zeros((3, D), np.float32),
        coder=np.array([0, MASK, 0, 0]),
    )


@njit(nogil=True)
def walk(matrix_RC, data, encoding, across, layout, unit, next_state, memory):
    """Code the matrix into `data`, as far as that goes, or decode it from there. All state is in `memory`.

    `unit` is half a step in standard deviations; the trellis runs down the columns, or across them.
    """
    tree, counter, weight_KI, stretched, place, guess, column, row, state, lower, diagonal, line, coder = memory
    R, C = matrix_RC.shape
    limit = tree.shape[0] // 2
    for r in range(R):
        _start_row(guess, row, line)
        for c in range(C):
            at = r if across else c
            grid = np.int64(state[at] & 1)
            _guess(guess, column, row, line, c)
            for i in range(layout.first, layout.last + 1):
                centre = int(min(CENTRES - 1.0, max(0.0, guess[CENTRE, i] * 8 + (CENTRES // 2 + 0.5))))
                width = WIDTH_BIN[int(min(1023.0, guess[SPREAD, i] * 128))]
                place[i] = ((i * CENTRES + centre) * WIDTHS + width) * weight_KI.shape[0] + grid * tree.shape[0]
            rank = matrix_RC[r, c] + limit
            rank = _code(rank, grid, data, encoding, coder, layout, tree, counter, weight_KI, stretched, place)
            k = rank - limit
            matrix_RC[r, c] = k
            state[at] = next_state[state[at], k & 1]
            value = (2 * k - grid * ((k > 0) - (k < 0))) * unit
            _learn(guess, column, row, r, c, value, layout.first > 0)
            if line.size:
                _regress(column, row, line, lower, r, c, value)
        if line.size:
            _take_row(lower, diagonal, line)


@njit(nogil=True)
def _start_row(guess, row, line):
    for i in range(row.size):
        row[i] = ROW_START[i]
    guess[COVARIANCE, 4] = 0.0
    guess[VARIANCE, 4] = 4.0
    for c in range(line.shape[1]):
        line[MEAN, c] = 0


@njit(nogil=True)
def _guess(guess, column, row, line, c):
    """(Centre; width): 0 nothing. 1 nothing; width of the row. 2 mean of the column; its width. 3 the two weights to the
    left; both widths. 4 mean of the column, by its slope in this row; error of that. 5, 6 the regression; its error in
    row and column, in the row."""
    guess[SPREAD, 1] = row[LONG]
    guess[SPREAD, 2] = column[WIDE, c]
    guess[SPREAD, 3] = column[WIDE, c] * row[LONG]
    guess[SPREAD, 4] = row[MISFIT]
    guess[FEATURE, 2] = guess[FEATURE, 4] = column[TREND, c]
    guess[FEATURE, 3] = row[LEFT] + row[SECOND]
    for i in range(2, 5):
        guess[CENTRE, i] = guess[FEATURE, i] * guess[COVARIANCE, i] / guess[VARIANCE, i]
    if line.size:
        guess[CENTRE, 5] = guess[CENTRE, 6] = line[MEAN, c]
        guess[SPREAD, 5] = row[ERROR] * column[MISS, c]
        guess[SPREAD, 6] = row[ERROR]


@njit(nogil=True)
def _code(rank, grid, data, encoding, coder, layout, tree, counter, weight_KI, stretched, place):
    """Walk down to a rank (integer + limit): the given one when encoding, else the coded one. Learn on the way."""
    node = 0
    while node >= 0:
        n = grid * tree.shape[0] + node
        total = np.float32(0)
        for i in range(layout.first, layout.last + 1):
            stretched[i] = STRETCH[counter[place[i] + node] >> 20]
            total += weight_KI[n, i] * stretched[i]
        p = np.int64(SQUASH[int(min(5632.0, max(0.0, total * 256.0 + 2816.5)))])
        bit = _code_bit(rank >= tree[node, 2], p, data, encoding, coder)
        error = np.float32(((bit << 16) - p) * (layout.rate / 65536))
        for i in range(layout.first, layout.last + 1):
            weight_KI[n, i] += error * stretched[i]
            packed = np.int64(counter[place[i] + node])
            p22, seen = packed >> 10, packed & 1023
            p22 += ((bit << 22) - bit - p22) * RATE[seen] >> 16
            counter[place[i] + node] = p22 << 10 | (seen + (seen < layout.limit))
        node = tree[node, bit]
    return ~node


@njit(nogil=True)
def _code_bit(given, p, data, encoding, coder):
    """A carryless binary arithmetic coder, as in lpaq, in 48 bits: 1 takes the lower part, p / 2^16 of the interval."""
    split = coder[LOW] + ((coder[HIGH] - coder[LOW]) >> 16) * p
    bit = np.int64(given if encoding else coder[CODE] <= split)
    if bit:
        coder[HIGH] = split
    else:
        coder[LOW] = split + 1
    while (coder[LOW] ^ coder[HIGH]) >> 40 == 0:
        at = coder[AT]
        if not encoding:
            coder[CODE] = coder[CODE] << 8 & MASK | (data[at] if at < data.size else 0)
        elif at < data.size:
            data[at] = coder[LOW] >> 40
        coder[AT] = at + 1
        coder[LOW] = coder[LOW] << 8 & MASK
        coder[HIGH] = coder[HIGH] << 8 & MASK | 255
    return bit


@njit(nogil=True)
def _learn(guess, column, row, r, c, value, centred):
    pace = 1 / min(r + 8, 64)
    width = abs(value) * DEVIATION
    column[WIDE, c] += (width - column[WIDE, c]) * pace
    row[LONG] += (width - row[LONG]) / row[COUNT]
    row[COUNT] = min(row[COUNT] + 1, 64.0)
    if not centred:
        return
    for i in range(2, 5):
        fade = 1 / 64 if i == 4 else 0.0
        feature = guess[FEATURE, i]
        guess[COVARIANCE, i] += feature * value - guess[COVARIANCE, i] * fade
        guess[VARIANCE, i] += feature * feature - (guess[VARIANCE, i] - 4) * fade
    row[MISFIT] += (abs(value - guess[CENTRE, 4]) * DEVIATION - row[MISFIT]) / 20
    column[TREND, c] += (value - column[TREND, c]) * pace
    row[SECOND] = row[LEFT]
    row[LEFT] = value


@njit(nogil=True)
def _regress(column, row, line, lower, r, c, value):
    """Correct the means of the weights to the right by this weight's error; keep the errors' widths."""
    error = np.float32(value - line[MEAN, c])
    line[RESIDUAL, c] = error
    line[VALUE, c] = value
    width = abs(error) * DEVIATION
    row[ERROR] += (width / column[MISS, c] - row[ERROR]) / 24
    column[MISS, c] += (width / max(row[ERROR], 0.1) - column[MISS, c]) / min(r + 8, 64)
    mean, slope = line[MEAN, c + 1 :], lower[c, c + 1 :]
    for j in range(mean.size):
        mean[j] += error * slope[j]


@njit(nogil=True)
def _take_row(lower, diagonal, line):
    """A += row rowᵀ, on its factors (method C1 of Gill, Golub, Murray and Saunders 1974): recursive least squares.

    With A = L D Lᵀ, the mean of each weight given those on its left is row c of L − 1 times their errors, L⁻¹ row.
    """
    share = 1.0
    for j in range(diagonal.size):
        error = line[RESIDUAL, j]
        old = diagonal[j]
        new = old + share * error * error
        gain = np.float32(error * share / new)
        share *= old / new
        diagonal[j] = new
        value, slope = line[VALUE, j + 1 :], lower[j, j + 1 :]
        for k in range(value.size):
            value[k] -= error * slope[k]
            slope[k] += gain * value[k]
