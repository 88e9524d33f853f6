"""The continuous cache: what followed, earlier in the text, where the network's hidden state was like this one.

p(token) ∝ Σ exp(sharpness · cosine(h, hᵢ)) over those of the last `tokens` positions i that it followed (Grave, Joulin and
Usunier 2017). It looks a hundred times further back than attention does, and unlike an n-gram it need not find the same words
again. The network's final hidden states are normalised: the product of two, over their width, is their cosine.

Shape letters: T positions that are asked about, S positions that they may see, D width, V vocabulary.
"""

import torch
from torch import Tensor

PIECE = 128  # positions at once: their cosines stay in the processor's cache


class ContinuousCache:
    """Positions of a stream: their hidden states and the tokens that followed them.

    They lie in a buffer that is written from left to right and moved to its front when it is full, which is rare.
    """

    def __init__(self, tokens: int, sharpness: float, vocabulary_size: int):
        self.tokens, self.sharpness, self.vocabulary_size = tokens, sharpness, vocabulary_size
        self.end = 0
        self.hidden_CD = torch.empty(0, 0)
        self.next_C = torch.empty(0, dtype=torch.long)

    @torch.no_grad()
    def look(self, hidden_D: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (V,) of what follows the position after the last, and the cosine of the nearest that is remembered.

        All are zero where nothing is.
        """
        probabilities_TV, nearest_T = self._look(hidden_D[None], 0)
        return probabilities_TV[0], nearest_T[0]

    @torch.no_grad()
    def advance(self, hidden_TD: Tensor, targets_T: Tensor) -> tuple[Tensor, Tensor]:
        """The same, (T, V) and (T,), of positions whose next tokens are known; each is then remembered by those after it."""
        found = []
        for hidden, targets in zip(hidden_TD.split(PIECE), targets_T.split(PIECE), strict=True):
            self.remember(hidden, targets)
            found.append(self._look(hidden, len(targets)))
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

    def _look(self, hidden_TD: Tensor, known: int) -> tuple[Tensor, Tensor]:
        """Of T positions in a row, the last `known` of what is remembered being the first of them."""
        T, device = len(hidden_TD), hidden_TD.device
        start = max(0, self.end - known - self.tokens)
        next_S = self.next_C[start : self.end]
        probabilities_TV = torch.zeros(T, self.vocabulary_size, device=device)
        if not len(next_S):
            return probabilities_TV, torch.zeros(T, device=device)
        first = self.end - known - start  # where the first of the T positions is, or will be, among the S
        ago_TS = first + torch.arange(T, device=device)[:, None] - torch.arange(len(next_S), device=device)
        cosine_TS = (hidden_TD / hidden_TD.shape[1]) @ self.hidden_CD[start : self.end].T
        cosine_TS.masked_fill_((ago_TS <= 0) | (ago_TS > self.tokens), -torch.inf)
        nearest_T1 = cosine_TS.amax(1, keepdim=True).clamp(min=-2)  # −2: nothing within reach
        weight_TS = cosine_TS.sub_(nearest_T1).mul_(self.sharpness).exp_()
        probabilities_TV.scatter_add_(1, next_S.expand(T, -1), weight_TS)
        probabilities_TV /= weight_TS.sum(1, keepdim=True).clamp(min=1e-30)
        return probabilities_TV, torch.where(nearest_T1 > -2, nearest_T1, 0.0)[:, 0]
