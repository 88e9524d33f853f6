"""The continuous cache: what followed, earlier in the text, where the network's hidden state was like this one.

p(token) ∝ Σ exp(sharpness · cosine(h, hᵢ)) over those of the last `tokens` positions i that it followed (Grave, Joulin and
Usunier 2017). It looks a hundred times further back than attention does, and unlike an n-gram it does not need the same words
again. The network's final hidden states are normalised: the dot product of two, divided by their width, is their cosine.

Shape letters: T positions that are asked about, S positions that they may see, D width, V vocabulary.
"""

import math

import numpy as np
import torch
from torch import Tensor

from fairway.kernels import njit

NEGLIGIBLE = -40.0  # log of a share of the weight; smaller shares change nothing
PIECE = 128  # positions at once: their cosines stay in the processor's cache


class ContinuousCache:
    """Positions of a stream: their hidden states and the tokens that followed them.

    They lie in a buffer that is written from left to right; when it is full, which is rare, they move to its front.
    """

    def __init__(self, tokens: int, sharpness: float, vocabulary_size: int):
        self.tokens, self.sharpness, self.vocabulary_size = tokens, sharpness, vocabulary_size
        self.end = 0
        self.hidden_CD = torch.empty(0, 0)
        self.next_C = torch.empty(0, dtype=torch.long)

    def look(self, hidden_D: np.ndarray) -> tuple[np.ndarray, float]:
        """Probabilities (V,) of what follows the position after the last, and the cosine of the nearest remembered state.

        All are zero where nothing is remembered.
        """
        probabilities_V = np.zeros(self.vocabulary_size)
        start = max(0, self.end - self.tokens)
        if start == self.end:
            return probabilities_V, 0.0
        hidden_SD, next_S = self.hidden_CD[start : self.end].numpy(), self.next_C[start : self.end].numpy()
        return probabilities_V, look_back(hidden_D, hidden_SD, next_S, self.sharpness, probabilities_V)

    @torch.no_grad()
    def advance(self, hidden_TD: Tensor, targets_T: Tensor) -> tuple[Tensor, Tensor]:
        """The same, (T, V) and (T,), of positions whose next tokens are known; each is then remembered by those after it."""
        found = []
        for hidden, targets in zip(hidden_TD.split(PIECE), targets_T.split(PIECE), strict=True):
            self.remember(hidden, targets)
            found.append(self._look(hidden))
        return torch.cat([probabilities for probabilities, _ in found]), torch.cat([nearest for _, nearest in found])

    def remember(self, hidden_TD: Tensor, targets_T: Tensor) -> None:
        """Positions in a row and the tokens that followed them."""
        T, D = hidden_TD.shape
        if self.end + T >= len(self.next_C):
            kept = slice(max(0, self.end - self.tokens), self.end)
            hidden_SD, next_S = self.hidden_CD[kept].to(hidden_TD), self.next_C[kept].to(targets_T)
            self.end = len(next_S)
            capacity = min(4 * (self.end + T), 2 * self.tokens + PIECE)
            self.hidden_CD, self.next_C = hidden_TD.new_empty(capacity, D), targets_T.new_empty(capacity)
            self.hidden_CD[: self.end], self.next_C[: self.end] = hidden_SD.view(-1, D), next_S
        self.hidden_CD[self.end : self.end + T] = hidden_TD
        self.next_C[self.end : self.end + T] = targets_T
        self.end += T

    def _look(self, hidden_TD: Tensor) -> tuple[Tensor, Tensor]:
        """Of the T positions that were remembered last."""
        T, device = len(hidden_TD), hidden_TD.device
        first = min(self.end - T, self.tokens)  # index of the first of them among the S
        start = self.end - T - first
        next_S = self.next_C[start : self.end]
        probabilities_TV = torch.zeros(T, self.vocabulary_size, device=device)
        if not T:
            return probabilities_TV, torch.zeros(T, device=device)
        ago_TS = first + torch.arange(T, device=device)[:, None] - torch.arange(len(next_S), device=device)
        cosine_TS = (hidden_TD / hidden_TD.shape[1]) @ self.hidden_CD[start : self.end].T
        cosine_TS.masked_fill_((ago_TS <= 0) | (ago_TS > self.tokens), -torch.inf)
        nearest_T1 = cosine_TS.amax(1, keepdim=True).clamp(min=-2)  # −2: nothing within reach
        weight_TS = cosine_TS.sub_(nearest_T1).mul_(self.sharpness).exp_()
        probabilities_TV.scatter_add_(1, next_S.expand(T, -1), weight_TS)
        probabilities_TV /= weight_TS.sum(1, keepdim=True).clamp(min=1e-30)
        return probabilities_TV, torch.where(nearest_T1 > -2, nearest_T1, 0.0)[:, 0]


@njit(fastmath={"reassoc", "contract"})
def look_back(hidden_D, hidden_SD, next_S, sharpness, probabilities_V):
    """`_look` for a decoder, one position at a time: adds to `probabilities_V`, zero before, and returns the nearest cosine."""
    cosine_S, nearest = np.empty(len(next_S), np.float32), np.float32(-2)
    for s in range(len(next_S)):
        total = np.float32(0)
        for d in range(len(hidden_D)):
            total += hidden_D[d] * hidden_SD[s, d]
        cosine_S[s] = total / len(hidden_D)
        nearest = max(nearest, cosine_S[s])
    total = 0.0
    for s in range(len(next_S)):
        behind = sharpness * (cosine_S[s] - nearest)
        if behind > NEGLIGIBLE:
            weight = math.exp(behind)
            probabilities_V[next_S[s]] += weight
            total += weight
    for v in range(len(probabilities_V)):
        probabilities_V[v] /= total
    return nearest
