"""The certificate and its page: the verdict follows from the claims, and digests are those of the bytes."""

import hashlib
import io
import re
import zipfile

import numpy as np
import pytest

from fairway.proof import certificate
from fairway.proof.claims import Claim
from fairway.proof.clocks import Clock
from fairway.proof.config import Certify
from tests.proof.standin import submission

CONDITIONS = ("causal", "normalised", "score before update", "single pass", "proof", "rules")
CLOCKS = [Clock("train", "train", 1452.13), Clock("quantise", "", None)]


def made(*failing: str) -> list[Claim]:
    """Two claims a condition; the second of those named fails."""
    return [
        Claim(condition, f"{condition} {number}", "how", "much", condition not in failing or number == 1, "a | b\nc")
        for condition in CONDITIONS
        for number in (1, 2)
    ]


def content(*failing: str, certified: int = 161_300) -> dict:
    claims = made(*failing)
    facts = {"bpb": 1.25, "coded_bytes": 70_000, "command": "python -I x", "arithmetic": "cpu", "submission_sha256": "ab12"}
    return certificate.verdict(claims, certified, 161_300) | {"claims": [vars(claim) for claim in claims]} | facts


def flat(page: str) -> str:
    """Without the padding of tables."""
    return re.sub(" +", " ", page)


@pytest.mark.parametrize(
    ("certified", "word", "legal"),
    [(9, "proved", True), (8, "proved for 8 of 9 tokens", None), (1, "proved for 1 of 9 tokens", None), (0, "refused", False)],
)
def test_the_verdict_says_of_how_much(certified, word, legal):
    verdict = certificate.verdict(made(), certified, 9)
    assert verdict == {
        "verdict": word,
        "legal": legal,
        "conditions": dict.fromkeys(CONDITIONS[:4], True),
        "reasons": [],
        "certified_tokens": certified,
        "val_tokens": 9,
    }


@pytest.mark.parametrize("certified", [9, 8])
@pytest.mark.parametrize("failing", CONDITIONS)
def test_one_claim_refuses_and_spoils_its_condition_only(failing, certified):
    verdict = certificate.verdict(made(failing), certified, 9)
    assert verdict["verdict"] == "refused" and verdict["legal"] is False
    assert verdict["conditions"] == {name: name != failing for name in CONDITIONS[:4]}
    assert verdict["reasons"] == [f"{failing} 2: a | b\nc"]


def test_the_score_is_the_size_of_the_file_over_the_bytes_of_the_documents():
    assert certificate.coded_bpb(3, b"abc\0de f") == round(24 / 7, 6)
    assert certificate.coded_bpb(29, b"") == 232


@pytest.mark.parametrize(
    ("nats", "size", "bpb"), [(np.log(2), 1, 1.0), (np.nan, 1, None), (np.inf, 1, None), (np.log(2), 0, 4.0)]
)
def test_an_estimate_is_the_sum_of_the_rows(nats, size, bpb):
    rows = np.zeros(4, [("nats", "<f4"), ("bytes", "u1")])
    rows["nats"], rows["bytes"] = nats, size
    assert certificate.estimate(rows) == bpb


def test_digests_are_of_the_bytes_that_a_verifier_has():
    pyz = submission(members={"model.fwy": b"weights", "code": b"code"})
    digests = certificate.digests(pyz, b"coded", b"text", b"tokens")
    with zipfile.ZipFile(io.BytesIO(pyz)) as archive:
        code = archive.read("__main__.py") + b"code"
    contents = {"submission": pyz, "code": code, "model": b"weights", "coded": b"coded", "val_documents": b"text"}
    contents["val_tokens"] = b"tokens"
    assert digests == {f"{name}_sha256": hashlib.sha256(value).hexdigest() for name, value in contents.items()}


def test_members_that_are_not_there_have_no_digest():
    for pyz in (b"no zip", submission(members={"model.fwy": b"weights"}).replace(b"model.fwy", b"model.xyz")):
        assert certificate.digests(pyz, b"", b"", b"")["model_sha256"] is None


def test_a_page_of_a_proof():
    page = flat(certificate.page(content(), CLOCKS))
    assert (
        "**Proved**: the whole validation text, 161,300 tokens, was coded and decoded in 70,000 bytes of compressed text: "
        "1.2500 bits per byte. All 12 claims hold.\n" in page
    )
    assert "| causal | yes |" in page and "| rules | rules 1 | how | much | yes | a \\| b c |" in page
    assert "| train | train | 1,452.1 |" in page and "| quantise | — | — |" in page
    assert "```sh\npython -I x\n```" in page and "cpu" in page and "`ab12`" in page


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"commit": None, "dirty": None}, "Of which commit the run is, is not known."),
        ({"commit": "c0ffee", "dirty": False}, "Its code, data and params are those of commit `c0ffee`.\n"),
        ({"commit": "c0ffee", "dirty": True}, "those of commit `c0ffee`, with edits that are in no commit.\n"),
    ],
)
def test_a_page_says_what_the_run_was_made_from(found, words):
    assert words in certificate.page(content() | found, CLOCKS)


def test_a_page_of_a_proof_in_part_calls_the_score_an_estimate():
    page = certificate.page(content(certified=9998), CLOCKS)
    assert "**Proved for 9,998 of 161,300 tokens**" in page and "The score of the whole text is an estimate" in page


def test_a_page_of_a_refusal_begins_with_the_reasons():
    page = flat(certificate.page(content("causal", "rules"), CLOCKS))
    assert page.startswith("# Certificate\n\n**Refused**:\n\n- causal 2: a | b c\n- rules 2: a | b c\n\n## The four")
    assert "| causal | **no** |" in page and "| normalised | yes |" in page


@pytest.mark.parametrize(
    ("changes", "documents", "words"),
    [
        ({}, 7, []),
        ({}, 0, ["whether val is too easy for the artifact (tokenize.witness_fraction)"]),
        ({"near_duplicates": 1.0}, 7, ["copies of val in train up to 100% (certify.near_duplicates)"]),
        ({"train_seconds": 0}, 7, ["the time of training (certify.train_seconds)"]),
        ({"eval_seconds": 0}, 7, ["the time of evaluation (certify.eval_seconds)"]),
    ],
)
def test_what_the_params_switch_off_stands_beside_the_verdict(changes, documents, words):
    config = Certify(**{"train_seconds": 600, "eval_seconds": 600} | changes)
    found = certificate.waived(config, documents)
    assert found == words
    assert ("**Not checked**: " in certificate.headline(content() | {"waived": found})) == bool(words)
    assert all(word in certificate.headline(content() | {"waived": found}) for word in words)
