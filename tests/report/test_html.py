import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from fairway.report import breakdown, content, figures, html, passages, style, tables
from fairway.report.labels import PER_TOKEN
from fairway.score.files import SCORE

VOID = {"meta", "link"}
EVIL = b"<script>alert('\"&amp;')</script> \xff\xfe \x01\x7f\xe2\x80\xae "  # of them a mark that turns the text around
KINDS = ("streaming", "ttt", "ngram")
CLAIM = {"condition": "causal", "claim": "a <b>", "how": "sum", "amount": "50 tokens", "passed": True, "result": "|x| ≤ 1e-7"}
CERTIFICATE = {
    "verdict": "proved",
    "bpb": 1.25,
    "coded_bytes": 7000,
    "conditions": {"causal": True, "single pass": True},
    "reasons": [],
    "claims": [CLAIM],
    "certified_tokens": 50,
    "val_tokens": 99,
}
SUMMARY = {"val_bpb": 1.25, "artifact_bytes": 1000, "headroom_bytes": 3000, "parameters": 2000, "bits_per_weight": 3.5}
SUMMARY["legal"] = True


class Page(HTMLParser):
    """Checks that elements are nested, and gathers what the page points at and says."""

    def __init__(self, content: str):
        super().__init__()
        self.open, self.links, self.tags, self.words, self.passages = [], [], set(), [], []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(set(names)) == len(names)
        self.tags.add(tag)
        self.links += [value for name, value in attributes if name in ("href", "src")]
        if ("class", "passage") in attributes:
            self.passages.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert "svg" in self.open

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, content):
        self.words.append(content)
        if self.open[-2:] == ["p", "i"] and self.passages:
            self.passages[-1] += content


def scores_of(text: bytes) -> dict[str, np.ndarray]:
    random, scores = np.random.default_rng(0), {}
    for kind in KINDS:
        rows = scores[kind] = np.zeros(len(text), SCORE)
        rows["token"] = list(text)
        rows["bytes"] = rows["token"] > 0
        rows["nats"] = random.exponential(2.0, len(text))
        rows["order"] = random.integers(1, 4, len(text))
    scores["ngram"]["neural"] = scores["ttt"]["nats"]
    return scores


@pytest.fixture(scope="module")
def inputs():
    text = b"\0".join([40 * EVIL, 30 * b"plain words. ", 40 * b"other\nlines\n"])
    scores = scores_of(text)
    tensors = [("attention", "blocks.0.key.weight", 1000, 500), ("fp16", "a<b", 10, 40), ("new", "blocks.1.x", 3, 9)]
    columns = ["role", "name", "weights", "bytes"]
    roles = pd.DataFrame([*tensors, ("container", "header", 0, 10)], columns=columns)
    steps = [("float", 1.5, None), ("quantized", 1.625, -0.125), ("mixture", 1.25, 0.375)]
    compress = {"code_bytes": 341, "tokenizer_bytes": 100, "artifact_bytes": 1000}
    matrices = pd.DataFrame(
        [("<m>", "attention", 8, 4, 0.25, 0.001, 3.5), ("unseen", "fp16", 8, 4, 0.125, -1.0, 2.0)],
        columns=["name", "role", "rows", "columns", "relative_error", "estimated_loss", "entropy"],
    )
    frames = {
        "ladder": pd.DataFrame(steps, columns=["stage", "bpb", "gain"]),
        "position": tables.by_position(scores),
        "quarters": tables.quarters(scores),
        "savings": tables.savings(scores),
        "documents": tables.by_document(scores),
        "orders": tables.by_order(scores["ngram"]),
        "bytes": tables.byte_parts(compress, roles),
        "loss": pd.DataFrame({"step": [7, 14], "loss": [6.5, 3.25]}),
        "layers": breakdown.by_layer(roles),
        "matrices": matrices,
        "seconds": breakdown.seconds({"train": {"seconds": 30.0, "tokens_per_second": 1234.0}, "certify": {"seconds": 10.0}}),
    }
    extremes = passages.extremes(scores["ngram"], [bytes([value]) for value in range(256)])
    changes = pd.DataFrame([("data.text_field", "a", "<i>")], columns=["key", "default", "value"])
    return SUMMARY, frames, content.sections(SUMMARY, frames, figures.drawn(frames), CERTIFICATE), extremes, changes


@pytest.fixture(scope="module")
def index(inputs):
    return html.index(*inputs)


def test_the_page_parses_and_asks_for_nothing_from_elsewhere(index):
    page = Page(index)
    assert "script" not in page.tags and "http" not in index and "url(" not in index and "@import" not in index
    assert set(page.links) == {
        "data:,",
        "report/certificate.md",
        "train/loss.tsv",
        *(
            f"report/{name}.tsv"
            for name in ("ladder", "bytes", "layers", "position", "savings", "documents", "orders", "matrices")
        ),
    }


def test_any_text_is_shown_and_none_is_markup(index, inputs):
    page = Page(index)
    shown = [html.visible("".join(token.text for token in passage.tokens)) for part in inputs[3] for passage in part]
    assert page.passages == shown
    assert any("<script>alert('\"&amp;')</script> \\xff\\xfe \\x01\\x7f\\u202e" in passage for passage in page.passages)
    assert not re.search("[\0-\x09\x0b-\x1f\x7f-\x9f\u202e\ufffd]", index)
    words = " ".join(page.words)
    assert "a <b>" in words and "<m>" in words and "<i>" in words


def test_a_token_may_be_a_tag():
    found = html.passage(passages.Passage(1, 0, 8, 2.0, [passages.Token("<script>\"'&", 1.0, 2.0)]))
    assert Page(found).passages == ["<script>\"'&"] and "<script" not in found


def test_numbers_are_those_of_the_tables(index, inputs):
    words = Page(index).words
    frames = inputs[1]
    for said in (
        "1.2500",
        "1,000 bytes",
        "1.6250",
        "\N{MINUS SIGN}0.1250",
        "+0.3750",
        "0.001000",
        "1,234",
        "30.0 s (75%)",
        "✓",
    ):
        assert any(said in word for word in words), said
    for row in frames["orders"].itertuples():
        assert {f"{row.tokens:,}", f"{row.neural:.4f}", f"{row.mixed:.4f}"} <= set(words)
    for row in frames["layers"].itertuples():
        assert words.count(f"{row.bytes:,}") >= 2  # in the chart and in the table
    cheap, dear = inputs[3]
    assert all(f"{passage.bits_per_byte:.3f}" in words for passage in cheap + dear)


def test_a_score_that_is_refused_says_why_and_shows_its_claims(inputs):
    summary, frames, _, extremes, _ = inputs
    refused = {
        "verdict": "refused",
        "conditions": {"causal": False},
        "reasons": ["a <b>: no"],
        "claims": [CLAIM | {"passed": False}],
    }
    sections = content.sections(summary, frames, figures.drawn(frames), CERTIFICATE | refused)
    index = html.index(summary | {"legal": False}, frames, sections, extremes, None)
    assert "Refused" in Page(index).words and "a <b>: no" in Page(index).words
    assert (
        "<small>bits per byte (an estimate)</small>" in index and "<title>1.2500 bits per byte (an estimate)</title>" in index
    )
    assert "<details open>" in index and 'class="yes"' not in index and "no commit to compare" in index


def test_same_input_same_bytes(index, inputs):
    assert html.index(*inputs) == index
    assert "None:" in html.index(*inputs[:-1], inputs[-1].iloc[:0])


def test_every_variable_is_defined_in_light_and_in_dark(index):
    assert list(style.LIGHT) == list(style.DARK)
    used = set(re.findall(r"var\(--([\w-]+)\)", index))
    assert used == set(style.LIGHT)
    assert all(f".{color}{{" in index for color in {*(score.color for score in PER_TOKEN), *figures.ROLE_COLORS.values()})


def luminance(color: str) -> float:
    """Relative luminance as the WCAG define it."""
    channels = (int(color[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize(("colors", "sign"), [(style.LIGHT, -1), (style.DARK, 1)])
def test_more_bits_are_further_from_the_paper_and_all_can_be_read(colors, sign):
    shades = [luminance(colors[f"b{shade}"]) for shade in range(style.SHADES)]
    assert all(sign * step > 0 for step in np.diff(shades)) and colors["b0"] == colors["paper"]
    for ground in [*shades, luminance(colors["paper"])]:
        light, dark = sorted((ground, luminance(colors["ink"])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3.5
    for name in ("quiet", "link", "good", "bad"):
        light, dark = sorted((luminance(colors["paper"]), luminance(colors[name])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4.5, name


def test_shades_follow_the_bits():
    shades = [style.shade(bits) for bits in np.linspace(0, 20, 200)]
    assert shades == sorted(shades) and set(shades) == set(range(style.SHADES))
    assert [style.shade(border) for border in style.BITS] == list(range(1, style.SHADES))


def test_code_and_bold_and_links_are_those_of_markdown():
    assert html.inline("`a**b` **c<d** `e`") == "<code>a**b</code> <b>c&lt;d</b> <code>e</code>"
    assert html.linked("[a.md](b/a.md)") == '<a href="b/a.md">a.md</a>' and "<a" not in html.inline("[a](b)")
