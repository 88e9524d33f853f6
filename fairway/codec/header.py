"""The header of a weights file: the network's config, the tensors' names, shapes and forms, and the lengths of their codes.

JSON, keys sorted, without spaces: {"config": …, "lengths": […], "tensors": {…}} and "coder" unless it is "range". "tensors" is
a tree of the dotted parts of the names, which compresses to half the bytes of a list. Its leaves are lists of sizes, followed
for a matrix by its form, as in [256, 512, {"bits": 5}]: the bits of its integers, and if it has them "states", "rotation" and
"repair" (rank of the low-rank correction, bits of the left and of the right factor).
"""

import json
from collections.abc import Iterator
from itertools import islice
from math import prod
from typing import NamedTuple

from fairway.codec.general import CODERS
from fairway.quant.matrix import QuantisedMatrix


class Stored(NamedTuple):
    """An array in the file: integers (int8) or fp16."""

    shape: tuple[int, ...]
    integers: bool = False
    states: int = 0

    @property
    def raw_bytes(self) -> int:
        return prod(self.shape) * (1 if self.integers else 2)


class Entry(NamedTuple):
    """One tensor. `form` describes how a matrix is quantised; {} for an fp16 tensor."""

    name: str
    shape: tuple[int, ...]
    form: dict

    def stored(self) -> list[Stored]:
        """Its arrays. A matrix: integers and scales, then those of both factors of its correction (left transposed, right)."""
        if not self.form:
            return [Stored(self.shape)]
        (R, C), (rank, *_) = self.shape, self.form.get("repair", [0])
        factors = [Stored((rank, R), True), Stored((rank,)), Stored((rank, C), True), Stored((rank,))]
        return [Stored((R, C), True, self.form.get("states", 0)), Stored((R,)), *(factors if rank else [])]


class Header(NamedTuple):
    """`entries` sorted by name; `lengths` in coded bytes, one per array, or one for all arrays with a general coder."""

    config: dict
    coder: str
    entries: list[Entry]
    lengths: list[int]

    def stored(self) -> list[Stored]:
        return [array for entry in self.entries for array in entry.stored()]

    @property
    def values(self) -> int:
        return sum(prod(array.shape) for array in self.stored())

    def records(self) -> list[tuple[str, int]]:
        """The content and the bytes, without checksum, of each record, in the order of the file."""
        if self.coder != "range":
            return [("all tensors", self.lengths[0])]
        lengths = iter(self.lengths)
        return [(f"'{entry.name}'", sum(islice(lengths, len(entry.stored())))) for entry in self.entries]


def form_of(matrix: QuantisedMatrix) -> dict:
    """The form of a matrix."""
    form = {"bits": matrix.integer_bits}
    if matrix.states:
        form["states"] = matrix.states
    if matrix.rotation:
        form["rotation"] = matrix.rotation
    if matrix.correction:
        left, right = matrix.correction
        form["repair"] = [len(left.integers), left.integer_bits, right.integer_bits]
    return form


def pack(header: Header) -> bytes:
    """The header's JSON. Raises AttributeError when a name is a prefix of another up to a dot; state dicts have none."""
    tree = {}
    for name, shape, form in header.entries:
        *path, last = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = [*shape, form] if form else shape
    content = {"config": header.config, "lengths": header.lengths, "tensors": tree}
    if header.coder != "range":
        content["coder"] = header.coder
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def parse(content: bytes) -> Header:
    """The header in a JSON text. Raises ValueError, with a few words, when `pack` cannot have written it."""
    try:
        fields = json.loads(content)
        entries = sorted(_leaves(fields["tensors"], []))
        header = Header(fields["config"], fields.get("coder", "range"), entries, fields["lengths"])
        expected = len(header.stored()) if header.coder == "range" else 1
        lengths_fit = len(header.lengths) == expected and all(map(_positive, header.lengths))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    if not (isinstance(header.config, dict) and header.coder in ("range", *CODERS) and lengths_fit):
        raise ValueError(f"config, coder {header.coder!r:.99} or lengths of {expected} parts")
    return header


def _leaves(tree: dict, path: list[str]) -> Iterator[Entry]:
    for part, node in tree.items():
        name = [*path, part]
        if isinstance(node, dict):
            yield from _leaves(node, name)
        else:
            shape, form = (node[:-1], node[-1]) if node and isinstance(node[-1], dict) else (node, {})
            if not (all(map(_positive, shape)) and (not form or _well_formed(form, *shape))):
                raise ValueError(f"'{'.'.join(name)}' as {node!r:.99}")
            yield Entry(".".join(name), tuple(shape), form)


def _well_formed(form: dict, _: int, columns: int) -> bool:
    known = {"bits": 0, "states": 4, "rotation": 1, "repair": [1, 2, 2]} | form
    rotation, (rank, *bits) = known["rotation"], known["repair"]
    return (
        len(known) == 4
        and all(type(number) is int and 2 <= number <= 8 for number in (known["bits"], *bits))
        and known["states"] in (4, 8)
        and all(map(_positive, (known["states"], rotation, rank)))
        and len(bits) == 2
        and rotation & (rotation - 1) == columns % rotation == 0
    )


def _positive(number: object) -> bool:
    return type(number) is int and number > 0
