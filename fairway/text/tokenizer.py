"""Text to tokens and back, without loss: a SentencePiece BPE model, or the byte-level vocabulary of the challenge.

BOS stands for the character NUL and the first BOS is implied, so a stream of documents is the text "\\0".join(documents)
and every text has tokens. Decoding looks up the bytes of each token; SentencePiece's own decoder drops spaces and replaces
bytes. U+2581, which SentencePiece uses for the space, and bytes that are not UTF-8 are encoded as byte pieces.
`encode` loses what a normalizer loses; `encode_bytes` loses nothing. This module is part of submission.pyz.
"""

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fairway.errors import RERUN, InputError, reading

BYTE_MODEL = b"bytes"  # the whole "model" of the byte-level vocabulary
BYTE_OFFSET = 4  # byte260: pad 0, BOS 1, EOS 2, unknown 3, then the bytes (reference/frontier-and-rules.md §5)
SPACE_SIGN = "▁"  # U+2581
SPELT = re.compile(r"([▁\udc80-\udcff]+)")  # the space sign, and what surrogateescape makes of bytes that are not UTF-8
RUN = 1 << 20  # bytes per call of SentencePiece, which uses about 90 times as much memory
# Never inside a piece: text is cut at newlines and NUL; SentencePiece reserves tab and U+2581, and drops a line with U+2585.
UNTRAINABLE = "\n\0\t▁▅"
CONTROLS = 2  # unknown 0, BOS 1


class Tokenizer:
    """A vocabulary: `pieces[id]` are the bytes that a token decodes to (BOS: NUL, other controls: nothing).

    `is_control` and `is_byte` are bool [vocabulary_size]. `from_bytes` makes one.
    """

    def __init__(self, pieces: list[bytes], bos: int, is_control: np.ndarray, is_byte: np.ndarray, model=None):
        self.pieces, self.bos, self.is_control, self.is_byte = pieces, bos, is_control, is_byte
        self.vocabulary_size = len(pieces)
        self._model = model  # a SentencePieceProcessor, or None at byte level
        self._byte_ids = np.zeros(256, np.uint16)  # the token of each byte; BOS for NUL
        for index in np.flatnonzero(is_byte):
            self._byte_ids[ord(pieces[index])] = index
        self._byte_ids[0] = bos

    @classmethod
    def from_bytes(cls, model: bytes) -> "Tokenizer":
        """From a serialized SentencePiece model or BYTE_MODEL. Raises InputError if it is neither or lacks BOS or bytes."""
        return _byte_level(cls) if model == BYTE_MODEL else _sentencepiece(cls, model)

    def encode(self, text: str) -> np.ndarray:
        """uint16 [tokens]: BOS and the tokens of each part of the text between NULs."""
        tokens = self._encoded([text.encode()], self._ids)
        return np.concatenate([np.array([self.bos], np.uint16), *tokens])

    def encode_bytes(self, chunks: Iterable[bytes]) -> Iterator[np.ndarray]:
        """The tokens of a stream of any bytes, as uint16 arrays, in bounded memory; the first BOS is implied.

        With a BOS in front they decode to exactly these bytes, whatever the tokenizer. For UTF-8 that survives `encode` they
        are the same tokens, wherever the chunks are cut. A line that does not survive is encoded as byte pieces.
        """
        return self._encoded(chunks, self._exact_ids)

    def _encoded(self, chunks: Iterable[bytes], ids_of: Callable[[bytes], list[int]]) -> Iterator[np.ndarray]:
        if self._model is None:
            yield from map(self._spelt, chunks)
            return
        for after_nul, run in split_parts(chunks):
            yield np.array([self.bos] * after_nul + ids_of(run), np.uint16)

    def _ids(self, run: bytes) -> list[int]:
        """SentencePiece's tokens; it may normalize the text."""
        ids: list[int] = []
        for index, part in enumerate(SPELT.split(run.decode(errors="surrogateescape"))):
            spelt = index % 2  # odd parts are matches of the expression
            ids += self._spelt(part.encode(errors="surrogateescape")).tolist() if spelt else self._model.EncodeAsIds(part)
        return ids

    def _exact_ids(self, run: bytes) -> list[int]:
        """The same if they decode to the run; otherwise line by line, with byte pieces for lines that do not survive."""
        if self._decoded(ids := self._ids(run)) == run:
            return ids
        ids = []
        for line in re.split(b"(\n)", run):
            found = self._ids(line)
            ids += found if self._decoded(found) == line else self._spelt(line).tolist()
        return ids

    def _spelt(self, content: bytes) -> np.ndarray:
        return self._byte_ids[np.frombuffer(content, np.uint8)]

    def _decoded(self, ids: list[int]) -> bytes:
        return b"".join(map(self.pieces.__getitem__, ids))

    def decode(self, ids: np.ndarray | Sequence[int]) -> bytes:
        """Bytes of the text. A BOS at the front decodes to nothing, a later one to NUL."""
        ids = np.asarray(ids).tolist()
        return self._decoded(ids[1:] if ids[:1] == [self.bos] else ids)


def read_tokenizer(path: Path, advice: str = RERUN) -> Tokenizer:
    """Read a tokenizer from a file. Raises InputError naming the file and what to do."""
    with reading(path, "a tokenizer", ValueError):  # SentencePiece's words, and its pieces, may be no UTF-8
        serialized = path.read_bytes()
        try:
            return Tokenizer.from_bytes(serialized)
        except InputError as error:
            raise InputError(f"{error}; {advice}") from None


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
        raise InputError(f"the tokenizer model ({len(serialized)} bytes) is not a SentencePiece model") from None
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


def split_parts(chunks: Iterable[bytes]) -> Iterator[tuple[bool, bytes]]:
    """The bytes between NULs, and whether a NUL precedes them. Parts longer than RUN are cut, after a newline if possible.

    No piece from `train_bpe` contains a newline, so such a cut changes no token.
    """
    waiting, after_nul = bytearray(), False
    for chunk in chunks:
        waiting += chunk
        while (nul := waiting.find(0, 0, RUN + 1)) >= 0 or len(waiting) > RUN:
            end = nul if nul >= 0 else _cut(waiting)
            yield after_nul, bytes(waiting[:end])
            after_nul = nul >= 0
            del waiting[: end + after_nul]
    yield after_nul, bytes(waiting)


def _cut(waiting: bytearray) -> int:
    """After the last newline within RUN bytes, else at the start of a character, else, in bytes that are not UTF-8, at RUN."""
    begins = (at for at in range(RUN, RUN - 4, -1) if waiting[at] & 0xC0 != 0x80)
    return waiting.rfind(b"\n", 0, RUN) + 1 or next(begins, RUN)


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
            max_sentence_length=2**30,  # bytes; the default silently drops lines above 4,192
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
    """The lines in the first `sample_bytes` UTF-8 bytes of the texts; a character cut in two at the end is left out."""
    lines, left = [], sample_bytes
    for text in texts:
        encoded = text.encode()
        lines += (encoded[:left].decode(errors="ignore") if len(encoded) > left else text).split("\n")
        left -= len(encoded)
        if left <= 0:
            break
    return lines


def _runs(lines: list[str], vocabulary_size: int) -> Iterable[str]:
    """The lines, cut at characters that get no token of their own and are encoded as byte pieces.

    The most frequent characters get a token, in at most half of the vocabulary that byte pieces leave (SentencePiece fails if
    characters fill it). A character rarer than a hundredth of an average token gets none: a merge is worth more.
    """
    counts = Counter()
    for line in lines:
        counts.update(line)
    rarest = counts.total() / (100 * vocabulary_size)
    known = sorted((c for c in counts if c not in UNTRAINABLE), key=lambda c: (-counts[c], c))
    kept = {c for c in known[: (vocabulary_size - CONTROLS - 256) // 2] if counts[c] >= rarest}
    cut = re.compile("[" + re.escape("".join(sorted(set(UNTRAINABLE).union(known) - kept))) + "]+")
    return (run for line in lines for run in cut.split(line) if run)
