"""Every section of params.yaml and its type, checked together before any work (DESIGN §5).

`python -m fairway.sections` prints the first mistake as one sentence. Every stage runs it before its own work, in a separate
process, because a stage must not import the params of later stages.
"""

import sys

from fairway.codec.config import Compress
from fairway.errors import InputError
from fairway.lm.config import Model, check_layers
from fairway.mixture.config import Cache, Ngram
from fairway.params import parse_section, read_yaml
from fairway.proof.config import Certify
from fairway.quant.config import Quant
from fairway.score.config import Eval, Ttt
from fairway.text.config import Data, Tokenize
from fairway.train.config import PrequantTtt, Qat, Train

SECTIONS = {
    "data": Data,
    "tokenize": Tokenize,
    "model": Model,
    "train": Train,
    "qat": Qat,
    "prequant_ttt": PrequantTtt,
    "quant": Quant,
    "compress": Compress,
    "eval": Eval,
    "ttt": Ttt,
    "cache": Cache,
    "ngram": Ngram,
    "certify": Certify,
}


def check(path: str) -> None:
    """Raises InputError for the first section or key that is wrong, and for settings that contradict each other."""
    check_sections(read_yaml(path), path)


def check_sections(content: dict, source: str) -> None:
    """The same for the content of a params file."""
    unknown = set(content) - set(SECTIONS)
    if unknown:
        raise InputError(f"{source}: unknown section '{min(map(str, unknown))}'; valid sections are {', '.join(SECTIONS)}")
    sections = {name: parse_section(content, name, cls, source) for name, cls in SECTIONS.items()}
    sections["qat"].check(sections["quant"])
    model = sections["model"]
    check_layers("quant.finer_layers", sections["quant"].finer_layers, model.layers)
    for name in ("prequant_ttt", "ttt"):
        if sections[name].freeze_blocks > model.layers:
            raise InputError(f"{name}.freeze_blocks {sections[name].freeze_blocks} exceeds model.layers {model.layers}")
    sections["eval"].check(sections["train"].sequence_length)


if __name__ == "__main__":
    try:
        check(sys.argv[1] if len(sys.argv) > 1 else "params.yaml")
    except InputError as error:
        sys.exit(f"error: {error}")
