"""Cheats of the artifact: the scores are honest, but submission.pyz is too large, or does not do alone what it claims."""

from pathlib import Path

import numpy as np

from fairway.submission import packing
from tests.gallery.pipeline import ALONE, BUDGET, COSTS, PACK, RETURNS, SUMS, Cheat, cheat, edit_submission, set_param

START = "torch.set_num_threads("
MEASURED = "header = bytes(text.Header("
FAILED = "compress failed with status 1"


@cheat("#1855 with brotli: 16,112,007", PACK, {BUDGET: "(16,777,216 would be 16 MiB; the challenge counts decimal)"})
def mebibytes_for_megabytes(patch):
    """A file of 16.1 million bytes is below 16 MiB and above 16 MB."""
    ballast, build = np.random.default_rng(0).bytes(16_000_001), packing.build
    set_param("compress.budget_bytes", 16 * 2**20)
    patch.setattr(packing, "build", lambda modules, members, root: build(modules, members | {"more": ballast}, root))
    patch.setattr(packing, "_add", lambda archive, name, content: archive.writestr(packing._entry(name), content))


@cheat("#1017, the rule", PACK, {ALONE: "compress tried to open", RETURNS: FAILED, COSTS: FAILED, SUMS: "0 positions"})
def weights_from_outside_the_artifact(patch):
    """The submission reads its weights from a file that lies elsewhere, and counts none of its bytes."""
    elsewhere = Path("artifacts/compress/model.fwy").absolute()
    edit_submission(patch, "submission/command_line.py", 'self._member("model.fwy")', f"Path({str(elsewhere)!r}).read_bytes()")


@cheat("#1017, the rule", PACK, {RETURNS: "decompress failed"})
def a_decoder_that_rolls_dice(patch):
    """Every logit has a little noise, as sums in no fixed order have: the decoder's probabilities are not the coder's."""
    noisy = "logits.astype(np.float64) + np.random.default_rng().normal(0, 0.01, len(logits))"
    edit_submission(patch, "score/predictor.py", "logits.astype(np.float64)", noisy)


@cheat("#1017, the rule", PACK, {ALONE: "compress tried to socket"})
def a_decoder_that_phones_home(patch):
    """It asks a server, and goes on alone when nobody answers."""
    ask = "import contextlib, socket\n    with contextlib.suppress(OSError): socket.create_connection(('127.0.0.1', 9))\n    "
    edit_submission(patch, "submission/command_line.py", START, ask + START)


@cheat("#1017, the rule", PACK, {ALONE: "", RETURNS: FAILED, COSTS: FAILED, SUMS: "0 positions"})
def a_decoder_that_needs_the_repository(patch):
    """Code that does not fit into the file is imported from where it was written."""
    root = str(Path(packing.__file__).parents[2])
    call = f"sys.path.insert(0, {root!r})\n    import stages.certify\n    "
    edit_submission(patch, "submission/command_line.py", START, call + START)


@cheat("#1017, the rule", PACK, {ALONE: "compress tried to open", RETURNS: FAILED, COSTS: FAILED, SUMS: "0 positions"})
def a_coder_that_leaves_the_text_behind(patch):
    """It writes the text where the decoder will look for it."""
    note = str(Path("note").absolute())
    edit_submission(
        patch,
        "submission/command_line.py",
        MEASURED,
        f"open({note!r}, 'wb').write(Path(name).read_bytes())\n        {MEASURED}",
    )


@cheat("#1017, the rule", PACK, {COSTS: "the header of the compressed text is not what it must be"})
def a_text_hidden_in_a_header(patch):
    """The compressed file names the arithmetic that made it; a line of the text follows, for a decoder to read."""
    name = "text.arithmetic() + '\\0' + Path(name).read_text()[:100]"
    edit_submission(patch, "submission/command_line.py", "count, text.arithmetic()", f"count, {name}")
    edit_submission(patch, "submission/text.py", "if header.arithmetic != arithmetic()", "if False")


ROGUES = [each for each in list(globals().values()) if isinstance(each, Cheat)]
