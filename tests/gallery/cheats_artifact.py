"""Cheats of the artifact: the scores are honest, but submission.pyz is too large, or does not do alone what it claims."""

import lzma
from pathlib import Path

import numpy as np

from tests.gallery.cheats_fence import know, known_text
from tests.gallery.pipeline import ALONE, BUDGET, COSTS, PACK, RETURNS, ROOT, SUMS, Cheat, cheat, set_param, submit

FAILED = "compress failed with status 1"


@cheat("#1855 with brotli: 16,112,007", "certify", {BUDGET: "(16,777,216 would be 16 MiB; the challenge counts decimal)"})
def mebibytes_for_megabytes(patch):
    """A file of 16.1 million bytes is below 16 MiB and above 16 MB."""
    set_param("compress.budget_bytes", 16 * 2**20)
    ballast = np.random.default_rng(0).bytes(16_000_001)  # a zip may begin with anything
    know("member", "val", {"val": lzma.compress(known_text())}, front=ballast)


@cheat(
    "#1017, the rule", PACK, {ALONE: "compress tried to open", RETURNS: FAILED, COSTS: FAILED, SUMS: "0 positions"}, dear=True
)
def weights_from_outside_the_artifact(patch):
    """The submission reads its weights from a file that lies elsewhere, and counts none of its bytes."""
    submit(patch, "weights_from", str(Path("artifacts/compress/model.fwy").absolute()))


@cheat("#1017, the rule", PACK, {RETURNS: "decompress failed"}, dear=True)
def a_decoder_that_rolls_dice(patch):
    """Every logit has a little noise, as sums in no fixed order have: the decoder's probabilities are not the coder's."""
    submit(patch, "noise")


@cheat("#1017, the rule", PACK, {ALONE: "compress tried to socket"}, dear=True)
def a_decoder_that_phones_home(patch):
    """It asks a server, and goes on alone when nobody answers."""
    submit(patch, "call_home")


@cheat("#1017, the rule", PACK, {ALONE: "", RETURNS: FAILED, COSTS: FAILED, SUMS: "0 positions"}, dear=True)
def a_decoder_that_needs_the_repository(patch):
    """Code that does not fit into the file is imported from where it was written."""
    submit(patch, "import_from", str(ROOT))


@cheat(
    "#1017, the rule", PACK, {ALONE: "compress tried to open", RETURNS: FAILED, COSTS: FAILED, SUMS: "0 positions"}, dear=True
)
def a_coder_that_leaves_the_text_behind(patch):
    """It writes the text where the decoder will look for it."""
    submit(patch, "leave_text", str(Path("note").absolute()))


@cheat("#1017, the rule", PACK, {COSTS: "the header of the compressed text is not what it must be"}, dear=True)
def a_text_hidden_in_a_header(patch):
    """The first letters of the text stand where the compressed file identifies its arithmetic, for a decoder to read."""
    submit(patch, "text_in_header")


CHEATS = [each for each in list(globals().values()) if isinstance(each, Cheat)]
