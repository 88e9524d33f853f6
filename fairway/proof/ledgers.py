"""The exposure ledgers: which text a stage says that it learned from (DESIGN 3.7), read through types and ranges."""

from typing import NamedTuple

from fairway.proof.untrusted import count, parsed, shown

SPLITS = ("train", "holdout", "val", "none")


class Ledger(NamedTuple):
    learned_from: str  # one of SPLITS
    tokens: int
    val_tokens: int  # read before they were scored


def read(stage: str, content: bytes) -> Ledger | str:
    """The ledger that `stage` wrote, or why it proves nothing."""
    found = parsed(content)
    split, tokens, exposed = (found.get(key) for key in ("learned_from", "tokens", "val_tokens_before_scoring"))
    if not found:
        return "no ledger, which is a JSON object"
    if found.get("stage") != stage:
        return f"the ledger is of {shown(found.get('stage'))}"
    if split not in SPLITS:
        return f"learned_from is {shown(split)}, expected one of {', '.join(SPLITS)}"
    for key, value in (("tokens", tokens), ("val_tokens_before_scoring", exposed)):
        if count(value) is None:
            return f"{key} is {shown(value)}, expected a whole number from 0"
    if exposed > tokens or (split == "val" and exposed < tokens):
        return f"learned from {tokens:,} tokens of {split}, of which {exposed:,} are validation tokens: it contradicts itself"
    return Ledger(split, tokens, exposed)
