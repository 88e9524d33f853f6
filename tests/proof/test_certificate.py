"""The certificate and its page: the verdict follows from the claims, and digests are those of the bytes."""

import hashlib
import io
import re
import zipfile

import pytest

from fairway.proof import certificate
from fairway.proof.claims import Claim
from fairway.proof.clocks import Clock
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


def content(*failing: str) -> dict:
    claims = made(*failing)
    facts = {"certified_tokens": 9998, "val_tokens": 161_300, "command": "python -I x", "arithmetic": "cpu"}
    facts |= {"submission_sha256": "ab12"}
    return certificate.verdict(claims) | {"claims": [vars(claim) for claim in claims]} | facts


def flat(page: str) -> str:
    """Without the padding of tables."""
    return re.sub(" +", " ", page)


def test_all_claims_make_it_legal():
    assert certificate.verdict(made()) == {"legal": True, "conditions": dict.fromkeys(CONDITIONS[:4], True), "reasons": []}


@pytest.mark.parametrize("failing", CONDITIONS)
def test_one_claim_makes_it_illegal_and_spoils_its_condition_only(failing):
    verdict = certificate.verdict(made(failing))
    assert verdict["legal"] is False
    assert verdict["conditions"] == {name: name != failing for name in CONDITIONS[:4]}
    assert verdict["reasons"] == [f"{failing} 2: a | b\nc"]


def test_digests_are_of_the_bytes_that_a_verifier_has():
    pyz = submission(members={"model.fwy": b"weights", "code": b"code"})
    digests = certificate.digests(pyz, b"coded", b"text", b"tokens")
    with zipfile.ZipFile(io.BytesIO(pyz)) as archive:
        code = archive.read("__main__.py") + b"code"
    contents = {"submission": pyz, "code": code, "model": b"weights", "coded": b"coded", "val_documents": b"text"}
    contents["val_tokens"] = b"tokens"
    assert digests == {f"{name}_sha256": hashlib.sha256(value).hexdigest() for name, value in contents.items()}


def test_a_legal_page():
    page = flat(certificate.page(content(), CLOCKS))
    assert (
        "**Legal**: all 12 claims hold; 9,998 of 161,300 validation tokens were coded and decoded bit for bit. The other"
        in page
    )
    whole = certificate.page(content() | {"certified_tokens": 161_300}, CLOCKS)
    assert "161,300 of 161,300 validation tokens were coded and decoded bit for bit.\n" in whole
    assert "| causal | yes |" in page and "| rules | rules 1 | how | much | yes | a \\| b c |" in page
    assert "| train | train | 1,452.1 |" in page and "| quantise | — | — |" in page
    assert "```sh\npython -I x\n```" in page and "cpu" in page and "`ab12`" in page


def test_an_illegal_page_begins_with_the_reasons():
    page = flat(certificate.page(content("causal", "rules"), CLOCKS))
    assert page.startswith("# Certificate\n\n**Not legal**:\n\n- causal 2: a | b c\n- rules 2: a | b c\n\n## The four")
    assert "| causal | **no** |" in page and "| normalised | yes |" in page
