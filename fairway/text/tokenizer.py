"""Text to tokens and back, without loss: a SentencePiece BPE model, or the byte-level vocabulary of the challenge.

BOS stands for the character NUL and the first BOS is implied, so a stream of documents is the text "\\0".join(documents)
and every text has tokens. Decoding is a table of bytes for each token, never SentencePiece's own decoder, which drops
spaces and replaces bytes. U+2581, which SentencePiece uses for the space, is spelt in its three UTF-8 bytes.
Travels inside submission.pyz.
"""

import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from fairway.errors import InputError

BYTE_MODEL = b"bytes"  # the whole "model" of the byte-level vocabulary
BYTE_OFFSET = 4  # byte260: pad 0, BOS 1, EOS 2, unknown 3, then the bytes (reference/frontier-and-rules.md §5)
SPACE_SIGN = "▁"  # U+2581
SPACE_BYTES = SPACE_SIGN.encode()
# Never inside a piece: line ends and NUL are cut at; SentencePiece reserves tab and U+2581, and drops a line with U+2585.
UNTRAINABLE = "\n\0\t▁▅"
CONTROLS = 2  # unknown 0, BOS 1


class Tokenizer:
    """A vocabulary: `pieces[id]` are the bytes a token decodes to (BOS: NUL, other controls: nothing).

    `is_control` and `is_byte` [vocabulary_size] tell the kinds apart; made by `from_bytes`.
    """

    def __init__(self, pieces: list[bytes], bos: int, is_control: np.ndarray, is_byte: np.ndarray, model=None):
        self.pieces, self.bos, self.is_control, self.is_byte = pieces, bos, is_control, is_byte
        self.vocabulary_size = len(pieces)
        self._model = model  # a SentencePieceProcessor, or None at byte level
        byte_ids = {pieces[index]: int(index) for index in np.flatnonzero(is_byte)}
        self._space_sign = [byte_ids[bytes([value])] for value in SPACE_BYTES]

    @classmethod
    def from_bytes(cls, model: bytes) -> "Tokenizer":
        """From a serialized SentencePiece model or BYTE_MODEL. Raises InputError if it is neither, or lacks BOS or bytes."""
        return _byte_level(cls) if model == BYTE_MODEL else _sentencepiece(cls, model)

    def encode(self, text: str) -> np.ndarray:
        """uint16 [tokens]: BOS and the tokens of each part of the text between NULs."""
        if self._model is None:
            values = np.frombuffer(b"\0" + text.encode(), dtype=np.uint8)
            return np.where(values == 0, self.bos, values.astype(np.uint16) + BYTE_OFFSET).astype(np.uint16)
        ids: list[int] = []
        for part in text.split("\0"):
            ids.append(self.bos)
            for index, run in enumerate(part.split(SPACE_SIGN)):
                if index:
                    ids += self._space_sign
                ids += self._model.EncodeAsIds(run)
        return np.array(ids, dtype=np.uint16)

    def decode(self, ids: np.ndarray | Sequence[int]) -> bytes:
        """UTF-8 bytes of the text; a BOS in front stands for nothing, any later one for NUL."""
        ids = np.asarray(ids).tolist()
        return b"".join(map(self.pieces.__getitem__, ids[1:] if ids[:1] == [self.bos] else ids))


def _byte_level(cls: type[Tokenizer]) -> Tokenizer:
    pieces = [b"", b"\0", b"", b""] + [bytes([value]) for value in range(256)]
    is_control = np.arange(len(pieces)) < BYTE_OFFSET
    return cls(pieces, 1, is_control, ~is_control)


def _sentencepiece(cls: type[Tokenizer], serialized: bytes) -> Tokenizer:
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(serialized)
    except RuntimeError:
        raise InputError(
            f"the tokenizer model ({len(serialized)} bytes) is not a SentencePiece model; give the .model file of the tokenizer"
        ) from None
    size = model.GetPieceSize()
    is_byte = np.array([model.IsByte(index) for index in range(size)])
    is_control = np.array([model.IsControl(i) or model.IsUnknown(i) or model.IsUnused(i) for i in range(size)])
    if model.bos_id() < 0 or is_byte.sum() != 256:
        raise InputError(
            f"the tokenizer model has BOS id {model.bos_id()} and {is_byte.sum()} byte pieces; "
            "expected a BOS token and all 256 bytes (train it with bos_id and byte_fallback)"
        )
    if size > 2**16:
        raise InputError(f"the tokenizer model has {size} tokens; shards hold 16-bit tokens, so at most 65536")
    pieces = [_piece_bytes(model.IdToPiece(i), is_byte[i], is_control[i]) for i in range(size)]
    pieces[model.bos_id()] = b"\0"
    return cls(pieces, model.bos_id(), is_control, is_byte, model)


def _piece_bytes(piece: str, is_byte: bool, is_control: bool) -> bytes:
    if is_byte:
        return bytes([int(piece[3:5], 16)])  # "<0x0A>"
    return b"" if is_control else piece.replace(SPACE_SIGN, " ").encode()


def train_bpe(texts: Iterable[str], vocabulary_size: int, sample_bytes: int) -> bytes:
    """A serialized lossless SentencePiece BPE model, trained on the first `sample_bytes` UTF-8 bytes of the texts.

    The same texts give the same bytes. Raises InputError if the texts are too small for the vocabulary.
    """
    from sentencepiece import SentencePieceTrainer

    lines = _lines(texts, sample_bytes)
    model = io.BytesIO()
    try:
        SentencePieceTrainer.Train(
            sentence_iterator=_runs(lines, vocabulary_size),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocabulary_size,
            normalization_rule_name="identity",
            byte_fallback=True,
            character_coverage=1.0,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,  # as the challenge's own tokenizer does
            max_sentence_length=2**30,  # bytes; the default drops lines above 4,192 without a word
            num_threads=1,
            unk_id=0,
            bos_id=1,
            eos_id=-1,
            pad_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        limit = re.search(r"value <= (\d+)", str(error))
        largest = f"the largest possible is {limit.group(1)}" if limit else "there is nothing to merge"
        raise InputError(
            f"tokenize.vocabulary_size is {vocabulary_size}, too large for the {sum(map(len, lines))} characters of train text "
            f"sampled: {largest}; lower it, raise tokenize.sample_bytes or give more documents"
        ) from None
    return model.getvalue()


def _lines(texts: Iterable[str], sample_bytes: int) -> list[str]:
    """Lines of the texts, `sample_bytes` UTF-8 bytes of them; a character cut in two at the end is left out."""
    lines, left = [], sample_bytes
    for text in texts:
        encoded = text.encode()
        lines += (encoded[:left].decode(errors="ignore") if len(encoded) > left else text).split("\n")
        left -= len(encoded)
        if left <= 0:
            break
    return lines


def _runs(lines: list[str], vocabulary_size: int) -> Iterable[str]:
    """The lines, cut around characters that get no token of their own: byte pieces spell those.

    The most frequent characters get one, at most half of what the bytes leave free (SentencePiece fails when characters
    fill the vocabulary), and none that is rarer than a hundredth of an average token: a merge uses the place better.
    """
    counts = Counter()
    for line in lines:
        counts.update(line)
    rarest = counts.total() / (100 * vocabulary_size)
    known = sorted((c for c in counts if c not in UNTRAINABLE), key=lambda c: (-counts[c], c))
    kept = {c for c in known[: (vocabulary_size - CONTROLS - 256) // 2] if counts[c] >= rarest}
    cut = re.compile("[" + re.escape("".join(sorted(set(UNTRAINABLE).union(known) - kept))) + "]+")
    return (run for line in lines for run in cut.split(line) if run)
