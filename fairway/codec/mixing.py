"""The compiled part of the weight coder: context mixing (PAQ; Mahoney 2005) and a binary arithmetic coder in one loop.

Every weight is coded as a sequence of binary decisions, a path down a tree over the integers; the path has about as many
decisions as the weight has bits. Several guesses predict the centre and the width of the weight's distribution. For each
combination of guess, centre, width, grid and tree node there is an adaptive probability, and a logistic mixture with learned
weights combines the guesses' probabilities into the one that the arithmetic coder uses.

The coder is in the same loop because the model of a decision depends on the previous decision; constriction codes batches
whose models are known beforehand. The loop computes with integers and IEEE sums, products and quotients in a fixed order,
never with exp, log or fastmath, so that all machines decode alike. The same function encodes and decodes, so that the two
cannot diverge.
"""

from itertools import accumulate
from operator import mul
from typing import NamedTuple

import numpy as np

from fairway.kernels import njit

# Powers by repeated multiplication: exp and pow of the C library differ between machines.
WIDTH = np.array(list(accumulate([1.0905077326652577] * 127, mul, initial=2.0**-6)))  # 2^(i/8 − 6)
UNIT = 48  # WIDTH[UNIT] is 1
_ODDS = np.array(list(accumulate([1.0039138893383475] * 2816, mul, initial=1.0)))  # exp(i/256), i/256 up to 11
_LOGISTIC = np.concatenate([1 / (1 + _ODDS[:0:-1]), _ODDS / (1 + _ODDS)])
SQUASH = np.clip(_LOGISTIC * 65536, 1, 65535).astype(np.uint16)  # [(x + 11) · 256] → probability · 2^16
STRETCH = ((np.searchsorted(_LOGISTIC, (np.arange(4096) + 0.5) / 4096) - 2816) / 256).astype(np.float32)  # its inverse

GUESSES = 7  # listed in `_guess`
CENTRES, WIDTHS = 49, 16  # bins of a guess, 1/8 and a factor of 2^(1/4) apart, in standard deviations of the matrix
WIDTH_BIN = np.searchsorted(WIDTH[UNIT - 15 : UNIT + 15 : 2], (np.arange(1024) + 0.5) / 128)  # [width · 128]
RATE = (65536 / (np.arange(1024) + 1.5)).astype(np.int64)  # [decisions seen] → learning rate of a probability · 2^16
SEEN = 8  # decisions that the Gaussian starting probabilities count as
RIDGE = 300.0  # rows of white noise that the regression starts from
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
    """The guesses in use, `first` to `last`, and their learning rates."""

    first: int
    last: int
    limit: int  # decisions after which the learning rate of an adaptive probability stops falling
    rate: float  # learning rate of the mixture weights
    start: float  # initial mixture weights


class Memory(NamedTuple):
    """All state of the walk. Values, means and widths are in standard deviations of the matrix.

    R rows, C columns, I guesses, N nodes of the tree, K = N times the number of grids; D = C, or 0 without regression.
    """

    tree_N3: np.ndarray  # child 0, child 1 (a node, or ~rank for a leaf), the first rank that belongs to child 1
    counter: np.ndarray  # uint32 (I · CENTRES · WIDTHS · K,): probability of child 1 in 22 bits, decisions seen in 10
    weight_KI: np.ndarray  # float32, mixture weights of each node
    stretched_I: np.ndarray  # float32, log-odds of the current decision by each guess
    place_I: np.ndarray  # where each guess's counters of the current weight begin in `counter`
    guess_5I: np.ndarray  # FEATURE, …: the centres of guesses 2 to 4 are feature · covariance / variance, both running sums
    column_3C: np.ndarray  # TREND, WIDE, MISS: running mean, width, width of the regression's errors relative to their rows'
    row_6: np.ndarray  # the two weights to the left; width, weights in that mean; error widths of guess 4 and the regression
    state: np.ndarray  # uint8 (max(R, C),), of the trellis of each column
    lower_DD: np.ndarray  # float32, [j] is column j of L in A = L D Lᵀ, see `take_row`
    diagonal_D: np.ndarray  # D in A = L D Lᵀ
    line_3D: np.ndarray  # float32, of the current row: conditional means, their errors, values
    coder: np.ndarray  # of the arithmetic coder: LOW and HIGH of the interval, the decoder's CODE, bytes so far


def memory(tree_N3: np.ndarray, start: np.ndarray, layout: Layout, shape: tuple[int, int], regressing: bool) -> Memory:
    """The initial state. `start` int64 (CENTRES, WIDTHS, K): the probabilities of child 1, times 2^22."""
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
    """Encode the matrix into `data`, as far as that reaches, or decode it from there. All state is in `memory`.

    `unit` is half a step in standard deviations of the matrix. The trellis runs down the columns of the original matrix,
    which are rows here if it was transposed (`across`).
    """
    tree, counter, weight_KI, stretched, place, guess, column, row, state, lower, diagonal, line, coder = memory
    R, C = matrix_RC.shape
    limit = tree.shape[0] // 2
    for r in range(R):
        start_row(guess, row, line)
        for c in range(C):
            # The trellis state of the column decides which grid this integer is on, and so what it stands for.
            at = r if across else c
            grid = np.int64(state[at] & 1)
            # Each guess predicts a centre and a width, which select a set of counters, one counter per tree node.
            _guess(guess, column, row, line, c)
            for i in range(layout.first, layout.last + 1):
                centre = int(min(CENTRES - 1.0, max(0.0, guess[CENTRE, i] * 8 + (CENTRES // 2 + 0.5))))
                width = WIDTH_BIN[int(min(1023.0, guess[SPREAD, i] * 128))]
                place[i] = ((i * CENTRES + centre) * WIDTHS + width) * weight_KI.shape[0] + grid * tree.shape[0]
            # Code the integer. When decoding, the given rank is ignored and the decoded one returned.
            rank = matrix_RC[r, c] + limit
            rank = _code(rank, grid, data, encoding, coder, layout, tree, counter, weight_KI, stretched, place)
            k = rank - limit
            matrix_RC[r, c] = k
            # Advance the trellis by the integer's parity, then let the guesses learn from the value.
            state[at] = next_state[state[at], k & 1]
            value = (2 * k - grid * ((k > 0) - (k < 0))) * unit
            _learn(guess, column, row, r, c, value, layout.first > 0)
            if line.size:
                regress(column, row, line, lower, r, c, value)
        if line.size:
            take_row(lower, diagonal, line)


@njit(nogil=True)
def start_row(guess, row, line):
    """Reset what is learned within a row: running statistics, the slope of guess 4, the regression's means."""
    for i in range(row.size):
        row[i] = ROW_START[i]
    guess[COVARIANCE, 4] = 0.0
    guess[VARIANCE, 4] = 4.0
    for c in range(line.shape[1]):
        line[MEAN, c] = 0


@njit(nogil=True)
def _guess(guess, column, row, line, c):
    """Predict the centre and the width of weight `c` of the row by every guess:

    0. centre 0, width 1
    1. centre 0, width of the row so far
    2. mean of the column so far times its regression slope (0 in the light layout), width of the column
    3. sum of the two weights to the left times its regression slope, product of the widths of row and column
    4. mean of the column times its slope within this row, width of this guess's errors
    5. regression on all weights to the left, product of its error widths in row and column
    6. the same regression, its error width in the row
    """
    # Widths.
    guess[SPREAD, 1] = row[LONG]
    guess[SPREAD, 2] = column[WIDE, c]
    guess[SPREAD, 3] = column[WIDE, c] * row[LONG]
    guess[SPREAD, 4] = row[MISFIT]
    # Centres of guesses 2 to 4: one feature each, times the slope of a least-squares fit through the origin.
    guess[FEATURE, 2] = guess[FEATURE, 4] = column[TREND, c]
    guess[FEATURE, 3] = row[LEFT] + row[SECOND]
    for i in range(2, 5):
        guess[CENTRE, i] = guess[FEATURE, i] * guess[COVARIANCE, i] / guess[VARIANCE, i]
    # The regression keeps the conditional means of all weights that are still to come in this row.
    if line.size:
        guess[CENTRE, 5] = guess[CENTRE, 6] = line[MEAN, c]
        guess[SPREAD, 5] = row[ERROR] * column[MISS, c]
        guess[SPREAD, 6] = row[ERROR]


@njit(nogil=True)
def _code(rank, grid, data, encoding, coder, layout, tree, counter, weight_KI, stretched, place):
    """Walk down the tree to a rank (integer + limit): the given one when encoding, else the decoded one. Returns the rank."""
    node = 0
    while node >= 0:
        # Logistic mixing: the log-odds ("stretch") of each guess's probability at this node, weighted by the node's mixture
        # weights and summed, are the log-odds of the mixed probability p of child 1, in 16 bits ("squash").
        n = grid * tree.shape[0] + node
        total = np.float32(0)
        for i in range(layout.first, layout.last + 1):
            stretched[i] = STRETCH[counter[place[i] + node] >> 20]
            total += weight_KI[n, i] * stretched[i]
        p = np.int64(SQUASH[int(min(5632.0, max(0.0, total * 256.0 + 2816.5)))])
        bit = code_bit(rank >= tree[node, 2], p, data, encoding, coder)
        # Learn from the decision. A mixture weight takes a step of gradient descent on the code length, error · log-odds. A
        # counter moves its 22-bit probability towards the decision, by a share that falls with the decisions it has seen.
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
def code_bit(given, p, data, encoding, coder):
    """Code one decision with a carryless binary arithmetic coder as in lpaq, with registers of 48 bits; returns it.

    A decision of 1, whose probability is p / 2^16, takes the lower part of the interval.
    """
    split = coder[LOW] + ((coder[HIGH] - coder[LOW]) >> 16) * p
    bit = np.int64(given if encoding else coder[CODE] <= split)
    if bit:
        coder[HIGH] = split
    else:
        coder[LOW] = split + 1
    # While the top bytes of both ends agree, they are settled: shift them out, when decoding shift the next byte in.
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
    """Update the statistics of guesses 1 to 4 by a weight's value; `centred` is false in the light layout, all centres 0."""
    # Widths of the column and of the row: running means of |value|, scaled to the standard deviation of a Gaussian.
    pace = 1 / min(r + 8, 64)
    width = abs(value) * DEVIATION
    column[WIDE, c] += (width - column[WIDE, c]) * pace
    row[LONG] += (width - row[LONG]) / row[COUNT]
    row[COUNT] = min(row[COUNT] + 1, 64.0)
    if not centred:
        return
    # Slopes of guesses 2 to 4: running sums of feature · value and feature². Those of guess 4 forget, within the row.
    for i in range(2, 5):
        fade = 1 / 64 if i == 4 else 0.0
        feature = guess[FEATURE, i]
        guess[COVARIANCE, i] += feature * value - guess[COVARIANCE, i] * fade
        guess[VARIANCE, i] += feature * feature - (guess[VARIANCE, i] - 4) * fade
    # Error of guess 4, mean of the column, and the two weights to the left of the next one.
    row[MISFIT] += (abs(value - guess[CENTRE, 4]) * DEVIATION - row[MISFIT]) / 20
    column[TREND, c] += (value - column[TREND, c]) * pace
    row[SECOND] = row[LEFT]
    row[LEFT] = value


@njit(nogil=True)
def regress(column, row, line, lower, r, c, value):
    """Correct the conditional means of the weights to the right by this weight's error; track the widths of the errors."""
    error = np.float32(value - line[MEAN, c])
    line[RESIDUAL, c] = error
    line[VALUE, c] = value
    width = abs(error) * DEVIATION
    row[ERROR] += (width / column[MISS, c] - row[ERROR]) / 24
    column[MISS, c] += (width / max(row[ERROR], 0.1) - column[MISS, c]) / min(r + 8, 64)
    # Given its error, the mean of each later weight j moves by error · L[j, c].
    mean, slope = line[MEAN, c + 1 :], lower[c, c + 1 :]
    for j in range(mean.size):
        mean[j] += error * slope[j]


@njit(nogil=True)
def take_row(lower, diagonal, line):
    """Add a row to the regression: A += row rowᵀ on the factors of A = L D Lᵀ, which is recursive least squares.

    The mean of a weight given those to its left is its row of L − 1 times their errors, and the errors are L⁻¹ row. The rank-1
    update is method C1 of Gill, Golub, Murray and Saunders (1974).
    """
    share = 1.0
    for j in range(diagonal.size):
        error = line[RESIDUAL, j]
        old = diagonal[j]
        new = old + share * error * error
        gain = np.float32(error * share / new)
        share *= old / new
        diagonal[j] = new
        # Remove what the errors up to j explain of the later values, and move column j of L by the rest.
        value, slope = line[VALUE, j + 1 :], lower[j, j + 1 :]
        for k in range(value.size):
            value[k] -= error * slope[k]
            slope[k] += gain * value[k]
