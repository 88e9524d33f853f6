"""Cheats of what was recorded: rows, ledgers, clocks, certificates and summaries edited, before certify or after it."""

import json
import shutil
from collections.abc import Callable
from hashlib import md5, sha256
from pathlib import Path

import numpy as np

from fairway.mixture import match, weights
from fairway.score import streaming
from fairway.score.bits import bits_per_byte
from stages.common import ARTIFACTS, REPORTS, write_array, write_json
from tests.gallery.cheats_score import hashed_cache
from tests.gallery.pipeline import (
    COSTS,
    EVALUATION_TIME,
    NGRAM,
    ONE_PASS,
    PACK,
    RETURNS,
    SCORE_FIRST,
    SCORES,
    TRAINING_TIME,
    TTT,
    Cheat,
    cheat,
    only,
    run,
    set_param,
    submit,
)
from tests.gallery.tools import REPLAY, SUBMITTED, UNCHANGED, VERIFIED, lock, replay, unchanged, verifier
from tests.gallery.tools import submit as submitted

CERTIFICATE, SUMMARY = ARTIFACTS / "certify/certificate.json", REPORTS / "summary.json"
PREFIX = 512  # tokens; the real scorer looks at the first 500 when everything is coded


def edit(path: Path, change: Callable[[dict], dict]) -> None:
    """Of an object in a JSON file."""
    found = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, found | change(found))


def edit_rows(stage: str, change: Callable[[np.ndarray], object]) -> None:
    """In place, in the column of scores, and the sum in the metrics with them."""
    path = ARTIFACTS / stage / "scores.npy"
    rows = np.load(path)
    change(rows["nats"])
    write_array(path, rows)
    bpb = round(bits_per_byte(rows["nats"], int(rows["bytes"].sum(dtype=np.int64))), 6)
    edit(REPORTS / stage / "metrics.json", lambda _: {f"val_bpb_{stage.removeprefix('eval_')}": bpb})


def nearly_free(nats: np.ndarray) -> None:
    nats[PREFIX:] = 1e-4


@cheat("—", "certify", {COSTS: "bytes of code words are too few", ONE_PASS: "eval_ngram: token 5"}, dear=True)
def rows_beyond_the_coded_part(patch):
    """Few tokens are coded, and all others are said to cost nothing."""
    set_param("certify.tokens", PREFIX)
    edit_rows("eval_ngram", nearly_free)


@cheat("—", "certify", {COSTS: "bits coded"})
def rows_beyond_what_is_scored_again(patch):
    """The same where everything is coded: the file is as long as it is."""
    edit_rows("eval_ngram", nearly_free)


@cheat("—", TTT, {COSTS: "bytes of code words are too few"}, dear=True)
def sixteen_tokens_of_a_hashed_cache(patch):
    """A cache that is no distribution, and a coded text so short that any slack would swallow the difference."""
    hashed_cache()
    set_param("certify.tokens", 16)


@cheat("—", NGRAM, {COSTS: "bits coded"})
def a_gate_that_reads_the_target_beyond_the_first_part(patch):
    """The match model is on where it is right, but not where the certificate runs the scorer again."""
    scan = match.MatchModel.scan

    def scan_and_know(self, tokens):
        matches, lengths = scan(self, tokens)
        wrong = (matches != tokens) & (np.arange(len(tokens)) >= PREFIX)
        return matches, np.where(wrong, 0, lengths)

    patch.setattr(match.MatchModel, "scan", scan_and_know)


@cheat("—", TTT, {COSTS: "bits coded"})
def learning_before_scoring_beyond_the_first_part(patch):
    """A chunk is learned before it is scored, but not where the certificate runs the scorer again."""
    update = streaming.update

    def update_early(training, tokens, nats, scored, bos):
        first, end = scored
        update(training, tokens, nats, scored, bos)
        if first >= PREFIX:
            for _ in range(4):
                training.learn(tokens[end : 2 * end - first + 1], nats[first:end].cpu().numpy())

    patch.setattr(streaming, "update", update_early)


@cheat("—", NGRAM, {COSTS: "bits coded", ONE_PASS: "eval_ngram: token"})
def a_compiled_kernel_exchanged(patch):
    """The machine code that a stage loads is another than its source says; certify compiles for itself."""
    learn = weights.tilt_and_learn
    only(patch, "eval_ngram", weights, "tilt_and_learn", lambda *arguments: [learn(*arguments) for _ in range(9)])


@cheat("—", "certify", {UNCHANGED: "as without the cheat"}, unchanged)
def rows_lowered_within_the_tolerance(patch):
    """Every row is a little less, by less than is compared: the estimate falls, the score of record is a file size."""
    edit_rows("eval_ngram", lambda nats: np.subtract(nats, 5e-5, out=nats, where=nats > 5e-5))


@cheat("—", PACK, {RETURNS: "differs from byte"}, dear=True)
def a_decoder_that_gives_up_behind_the_first_part(patch):
    """It decodes the first tokens, and reverses what comes then."""
    submit(patch, "reverse_the_rest", str(PREFIX))


@cheat("—", PACK, {RETURNS: "found more bytes", COSTS: "its blocks end at"}, dear=True)
def a_text_behind_the_last_block(patch):
    """The compressed file ends in some of the text, which no block accounts for."""
    submit(patch, "text_at_the_end")


@cheat("—", PACK, {RETURNS: "decompress failed"}, dear=True)
def a_decoder_that_reads_the_clock(patch):
    """Its probabilities depend on the second at which it runs."""
    submit(patch, "clock")


@cheat("—", "certify", {TRAINING_TIME: "no clock of train"})
def seconds_below_zero(patch):
    """A clock that makes others shorter."""
    edit(REPORTS / "train/timing.json", lambda _: {"seconds": -500.0})


@cheat("—", "certify", {EVALUATION_TIME: "no clock of score (eval_ttt)"})
def infinite_seconds(patch):
    """Python writes and reads a number that JSON does not have."""
    (REPORTS / "eval_ttt/timing.json").write_text('{"seconds": -Infinity}', encoding="utf-8")


@cheat("—", "certify", {SCORE_FIRST: "train: no ledger"})
def a_ledger_that_is_null(patch):
    """What says nothing has not said that it learned."""
    (ARTIFACTS / "train/ledger.json").write_text("null", encoding="utf-8")


@cheat("—", "certify", {SCORE_FIRST: "prequant_ttt: no ledger"})
def a_ledger_cut_off(patch):
    """The file ends before the number that matters."""
    path = ARTIFACTS / "prequant_ttt/ledger.json"
    path.write_bytes(path.read_bytes()[:-20])


@cheat("—", "certify", {SCORE_FIRST: "it contradicts itself"})
def a_ledger_that_contradicts_itself(patch):
    """It learned from val, it says, but from no token of it."""
    edit(ARTIFACTS / "prequant_ttt/ledger.json", lambda _: {"learned_from": "val", "val_tokens_before_scoring": 0})


@cheat("—", "certify", {REPLAY: "artifacts/eval_sliding/scores.npy"}, replay)
def rows_of_a_stage_that_is_not_coded(patch):
    """The rung of the ladder before the last: nothing is coded with it, but the report shows it."""
    edit_rows("eval_sliding", lambda nats: np.multiply(nats, 1.5, out=nats))


@cheat("—", SCORES, {ONE_PASS: "eval_ttt: token 0", COSTS: "bits coded"})
def weights_replaced_after_packing(patch):
    """model.fwy, which is scored, is another than the one in submission.pyz."""
    shutil.copy(ARTIFACTS / "compress/submission.pyz", "kept.pyz")
    set_param("train.steps", 120)
    run("train prequant_ttt quant compress")
    set_param("train.steps", 30)
    shutil.move("kept.pyz", ARTIFACTS / "compress/submission.pyz")


@cheat("—", "", {SUBMITTED: "val_bpb is 0.5"}, submitted)
def a_summary_edited(patch):
    """The number that people read, in a file that nothing is proved of."""
    edit(SUMMARY, lambda _: {"val_bpb": 0.5})


@cheat("—", "", {SUBMITTED: "val_bpb is 0.5"}, submitted)
def a_score_edited_in_certificate_and_summary(patch):
    """The score of record as well."""
    edit(CERTIFICATE, lambda _: {"bpb": 0.5})
    edit(SUMMARY, lambda _: {"val_bpb": 0.5, "certified_bpb": 0.5})


def follow(content: dict) -> None:
    """A certificate, and everything that is compared with it, as a forger leaves them who knows all of that."""
    write_json(CERTIFICATE, content)
    shutil.copy(CERTIFICATE, REPORTS / "report/certificate.json")
    edit(SUMMARY, lambda _: {"val_bpb": content["bpb"], "certified_bpb": content["bpb"], "legal": content["legal"]})
    lock()


@cheat("—", "", {SUBMITTED: "but artifacts/certify/coded.fwt and", VERIFIED: "certificate: bpb"}, lambda honest: both(honest))
def a_score_edited_everywhere(patch):
    """In the certificate, its copy, the summary and dvc.lock; the compressed file is as long as it is."""
    follow(json.loads(CERTIFICATE.read_bytes()) | {"bpb": 0.5})


@cheat("—", "", {VERIFIED: "coded.fwt: damaged blocks"}, verifier)
def a_compressed_file_cut_off_and_all_hashes_with_it(patch):
    """Half of the compressed file is half of the score, and every number that is compared follows; it decodes to nothing."""
    coded, text = ARTIFACTS / "certify/coded.fwt", (ARTIFACTS / "certify/val.txt").read_bytes()
    content = coded.read_bytes()
    coded.write_bytes(content := content[: len(content) // 2])
    bpb = round(8 * len(content) / (len(text) - text.count(0)), 6)
    said = {"bpb": bpb, "coded_bytes": len(content), "coded_sha256": sha256(content).hexdigest()}
    follow(json.loads(CERTIFICATE.read_bytes()) | said)


WHITEWASHED = {SCORE_FIRST: "train learned from", REPLAY: "artifacts/certify/certificate.json"}


@cheat("—", "certify", WHITEWASHED, lambda honest: whitewashed(honest))
def a_refusal_turned_into_a_proof(patch):
    """The ledger says that val was learned from, the certificate refuses, and is edited with all that is compared with it."""
    edit(ARTIFACTS / "train/ledger.json", lambda _: {"learned_from": "val", "val_tokens_before_scoring": 9, "tokens": 9})


@cheat("—", "", {SUBMITTED: "was made after other stages than it names"}, submitted)
def a_lock_edited(patch):
    """dvc.lock names another training set."""
    path, made = Path("dvc.lock"), md5((ARTIFACTS / "train/checkpoint.safetensors").read_bytes(), usedforsecurity=False)
    path.write_text(path.read_text(encoding="utf-8").replace(made.hexdigest(), "0" * 32), encoding="utf-8")


@cheat("—", "", {SUBMITTED: "val.txt: its SHA-256"}, submitted)
def a_text_edited(patch):
    """More text makes fewer bits per byte of it."""
    path = ARTIFACTS / "certify/val.txt"
    path.write_bytes(2 * path.read_bytes())


@cheat("—", "", {SUBMITTED: "certificate.md is not the one that dvc.lock names"}, submitted)
def a_page_edited(patch):
    """The certificate as people read it."""
    path = REPORTS / "report/certificate.md"
    path.write_text(path.read_text(encoding="utf-8").replace("bits per byte", "bits per kilobyte"), encoding="utf-8")


def both(honest: Path) -> dict[str, str]:
    return submitted(honest) | verifier(honest)


def whitewashed(honest: Path) -> dict[str, str]:
    found = json.loads(CERTIFICATE.read_bytes())
    follow(found | {"verdict": "proved", "legal": True, "reasons": [], "claims": [c for c in found["claims"] if c["passed"]]})
    said = replay(honest)
    write_json(CERTIFICATE, found)
    return said


CHEATS = [each for each in list(globals().values()) if isinstance(each, Cheat)]
