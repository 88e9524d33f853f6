"""The report's tables: metrics and per-token scores in, DataFrames out.

Every table that splits a score can be added up to it again: bits are summed in float64 and divided by the bytes of their
own part, and each part has at least one byte where the text allows it. A document's bits include those of the BOS that
ends it, the last document's excepted: the stream just stops there. Scores are rows of SCORE (fairway/score/files.py), of
three kinds, all of the same stream: "streaming", "ttt" and "ngram".
"""

import math

import numpy as np
import pandas as pd

from fairway.report import record
from fairway.report.labels import LEARNERS, PER_TOKEN, SCORES, STREAMING, Score

# Keys of the summary after the scores, in the order written, by the stage that they come from.
REST = {
    "eval_sliding": ["quant_gap_bpb"],
    "compress": ["artifact_bytes", "headroom_bytes", "code_bytes", "bits_per_weight"],
    "train": ["parameters", "train_tokens"],
    "certify": ["legal", "certified_tokens", "certified_bpb"],
}
ROLES = {
    "attention": "weights: attention",
    "feed_forward": "weights: feed-forward",
    "projection": "weights: projections",
    "embedding": "weights: embeddings",
    "fp16": "weights: vectors and scalars",
    "container": "weights: header",
}


def summary(metrics: dict[str, dict], certificate: dict) -> dict:
    """The headline metrics, flat; `metrics` are those of each stage by its name. The certificate decides the score."""
    decided = record.entries(certificate)
    scores = {score.metric: metrics[score.stage][score.metric] for score in measured(metrics)}
    rest = {key: decided.get(key, metrics[stage].get(key)) for stage, keys in REST.items() for key in keys}
    return {"val_bpb": decided["val_bpb"]} | scores | rest


def measured(metrics: dict[str, dict]) -> list[Score]:
    """The scores of a run: all but the optional ones that it did not measure."""
    return [score for score in SCORES if score.metric in metrics[score.stage] or not score.optional]


def ladder(metrics: dict[str, dict]) -> pd.DataFrame:
    """stage (the name of a score), bpb, and gain: the bits per byte that it saves over the one before (NaN for the first)."""
    rows = [(score.name, metrics[score.stage][score.metric]) for score in measured(metrics)]
    frame = pd.DataFrame(rows, columns=["stage", "bpb"])
    frame["gain"] = -frame["bpb"].diff()
    return frame


def by_position(scores: dict[str, np.ndarray], bins: int = 50) -> pd.DataFrame:
    """bpb of each kind of score along the stream, in parts of about equally many bytes.

    The column `position` is the number of bytes up to the end of a part, so its differences are the weights with which the
    parts add up to the whole. A text of few bytes has fewer parts.
    """
    read = np.cumsum(next(iter(scores.values()))["bytes"], dtype=np.int64)
    marks = np.arange(1, bins + 1) * int(read[-1]) // bins
    ends = np.unique(np.searchsorted(read, marks[marks > 0]) + 1)
    position = read[ends - 1]
    return pd.DataFrame({"position": position} | _bits_per_byte(scores, ends, np.diff(position, prepend=0)))


def gains(frame: pd.DataFrame) -> pd.DataFrame:
    """The bits per byte that each learner saves over streaming, `ttt` and `ngram`, in each row of a table."""
    return frame[[score.column for score in LEARNERS]].rsub(frame[STREAMING.column], axis=0)


def quarters(scores: dict[str, np.ndarray]) -> pd.DataFrame:
    """`by_position` in four parts, with the bits per byte that each learner saves there: `ttt_saves`, `ngram_saves`."""
    frame = by_position(scores, 4)
    return frame.join(gains(frame).add_suffix("_saves"))


def savings(scores: dict[str, np.ndarray], bins: int = 200) -> pd.DataFrame:
    """position (bytes, from 0), and the bits that each learner has saved over streaming by then: `ttt`, `ngram`.

    The last row over the bytes is the learner's overall gain; the slope says whether it still learns.
    """
    frame = by_position(scores, bins)
    sizes = frame["position"].diff().fillna(frame["position"])
    saved = frame[["position"]].join(gains(frame).mul(sizes, axis=0).cumsum())
    return pd.concat([pd.DataFrame(0, index=[0], columns=saved.columns), saved], ignore_index=True)


def by_document(scores: dict[str, np.ndarray]) -> pd.DataFrame:
    """document (from 1), bytes, and bpb of each kind; NaN for a document without bytes.

    A token that spells no byte is a BOS and ends a document, as a NUL character within one does (fairway/text/tokenizer.py).
    """
    counts = next(iter(scores.values()))["bytes"]
    ends = np.flatnonzero(counts == 0) + 1
    if not len(ends) or ends[-1] < len(counts):
        ends = np.append(ends, len(counts))
    text_bytes = np.diff(np.cumsum(counts, dtype=np.int64)[ends - 1], prepend=0)
    columns = {"document": np.arange(1, len(ends) + 1), "bytes": text_bytes}
    return pd.DataFrame(columns | _bits_per_byte(scores, ends, text_bytes))


def easy_to_hard(documents: pd.DataFrame, most: int = 60) -> pd.DataFrame:
    """bytes and bpb of each kind, of documents (as made by `by_document`) from the lowest streaming bpb to the highest.

    Neighbours are put together until at most `most` groups of about equally many bytes are left, which still add up.
    Documents without bytes are left out.
    """
    ordered = documents[documents["bytes"] > 0].sort_values(STREAMING.column, kind="stable")
    kinds = [score.column for score in PER_TOKEN]
    bits = ordered[kinds].mul(ordered["bytes"], axis=0).assign(bytes=ordered["bytes"])
    if len(bits) > most:
        bits = bits.groupby(((bits["bytes"].cumsum() - 1) * most // bits["bytes"].sum()).to_numpy()).sum()
    groups = bits[kinds].div(bits["bytes"], axis=0)
    groups.insert(0, "bytes", bits["bytes"])
    return groups.reset_index(drop=True)


def by_order(rows: np.ndarray) -> pd.DataFrame:
    """What the mixture does where the longest n-gram whose context was seen before has a given order.

    `rows` are those of eval_ngram. order, tokens, share (of the tokens), bytes, neural and mixed (bpb of the network and of
    the mixture; NaN where no byte is spelt), saved (bits).
    """
    orders, order = np.unique(rows["order"], return_inverse=True)
    tokens = np.bincount(order)
    text_bytes, neural, mixed = (np.bincount(order, rows[column]) for column in ("bytes", "neural", "nats"))
    divisor = np.where(text_bytes > 0, text_bytes, np.nan) * math.log(2)
    return pd.DataFrame(
        {
            "order": orders,
            "tokens": tokens,
            "share": tokens / len(rows),
            "bytes": text_bytes.astype(np.int64),
            "neural": neural / divisor,
            "mixed": mixed / divisor,
            "saved": (neural - mixed) / math.log(2),
        }
    )


def _bits_per_byte(scores: dict[str, np.ndarray], ends: np.ndarray, text_bytes: np.ndarray) -> dict[str, np.ndarray]:
    """Per kind, the bits of the rows before each end (parts,) over the bytes of that part; the last one takes all rows left."""
    starts = np.concatenate(([0], ends[:-1]))
    nats = {kind: np.add.reduceat(rows["nats"].astype(np.float64), starts) for kind, rows in scores.items()}
    divisor = np.where(text_bytes > 0, text_bytes, np.nan) * math.log(2)
    return {kind: sums / divisor for kind, sums in nats.items()}


def byte_parts(compress: dict, roles: pd.DataFrame) -> pd.DataFrame:
    """part, bytes, weights: what submission.pyz is made of; adds up to `artifact_bytes`.

    `compress` are the metrics of that stage, `roles` its table (role, name, weights, bytes). "zip directory" is what no
    other part accounts for.
    """
    sums = roles.groupby("role", sort=False)[["bytes", "weights"]].sum()
    order = [role for role in ROLES if role in sums.index] + [role for role in sums.index if role not in ROLES]
    rows = [("code", compress["code_bytes"], 0), ("tokenizer", compress["tokenizer_bytes"], 0)]
    rows += [(ROLES.get(role, f"weights: {role}"), *map(int, sums.loc[role])) for role in order]
    rest = compress["artifact_bytes"] - sum(size for _, size, _ in rows)
    if rest:
        rows.append(("zip directory", rest, 0))
    return pd.DataFrame(rows, columns=["part", "bytes", "weights"])
