"""What the pages say exists: links, anchors, commands, params; and docs/params.md is the generated page.

A command is parsed, not run: `dvc` by its own parser, `-S` values and YAML blocks by the types of the sections.
"""

import itertools
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from dvc.cli.parser import get_main_parser

from fairway import presets, reference
from fairway.params import parse, read_yaml
from fairway.sections import SECTIONS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHIPPED = read_yaml(ROOT / "params.yaml")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`\n]+)`")
NAMED_PARAM = re.compile(rf"(?:{'|'.join(SECTIONS)})\.[a-z]\w*")
FILE_ENDINGS = ("fwy", "json", "md", "model", "py", "pyz", "tsv")  # `report.md` is no param
ids = lambda path: path.name  # noqa: E731


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def blocks(page: Path, *languages: str) -> list[str]:
    return [code for language, code in FENCE.findall(page.read_text(encoding="utf-8")) if language in languages]


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> list[list[str]]:
    """Every shell command in a block or in a span of code, in words."""
    lines = [line for block in blocks(page, "", "sh", "bash") for line in block.splitlines()] + SPAN.findall(prose(page))
    lines = [part.strip() for line in lines for part in line.split("&&")]
    starts = r"(?:\w+=\S* )*(?:python|dvc|make|git|torchrun) [^…]*"
    words = [shlex.split(line, comments=True) for line in lines if re.fullmatch(starts, line)]
    return [list(itertools.dropwhile(lambda word: "=" in word, command)) for command in words]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_and_anchors_resolve(page):
    broken = []
    for link in LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not link.startswith("https://") and not (target.exists() and (not anchor or anchor in anchors(target))):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_exist(page):
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for command in commands(page):
        program, rest = command[0], command[1:]
        if "-m" in rest and program in ("python", "torchrun"):
            assert find_spec(rest[rest.index("-m") + 1]), command
        elif program == "python" and rest[0].startswith("tests/"):
            assert (ROOT / rest[0]).is_file(), command
        elif program == "make":
            assert set(rest) <= set(targets), command
        elif program == "dvc":
            get_main_parser().parse_args(rest)  # exits where DVC would


def test_presets_that_are_named_exist():
    named = [command[3:] for page in PAGES for command in commands(page) if command[:3] == ["python", "-m", "fairway.presets"]]
    names = [name for names in named for name in names if name != "list"]
    assert names and set(names) <= set(presets.overlays())


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_params_that_are_named_exist(page):
    spans = [span for span in SPAN.findall(prose(page)) if NAMED_PARAM.match(span)]
    named = {NAMED_PARAM.match(span)[0] for span in spans}
    known = {f"{section}.{key}" for section, values in SHIPPED.items() for key in values}
    assert {name for name in named if name.split(".")[1] not in FILE_ENDINGS} <= known


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "technique.md"], ids=ids)  # whose value is new
def test_params_that_are_set_on_the_command_line_are_valid(page):
    """Every value of a sweep, each in its section as shipped; the values of a command that share a section together."""
    for command in commands(page):
        options = [word for flag, word in itertools.pairwise(command) if flag == "-S" and word != "section.key=value"]
        keys, values = zip(*(option.split("=", 1) for option in options), strict=True) if options else ((), ())
        for chosen in itertools.product(*(value.split(",") for value in values)):
            changed: dict[str, dict] = {}
            for key, value in zip(keys, chosen, strict=True):
                section, name = key.split(".")
                changed.setdefault(section, dict(SHIPPED[section]))[name] = yaml.safe_load(value)
            for section, params in changed.items():
                parse(params, section, SECTIONS[section])


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_blocks_of_yaml_are_valid_params(page):
    for block in blocks(page, "yaml"):
        for section, values in yaml.safe_load(block).items():
            parse(SHIPPED[section] | values, section, SECTIONS[section])


def test_the_page_of_params_is_the_generated_one():
    assert (ROOT / "docs/params.md").read_text(encoding="utf-8") == reference.page(ROOT)


def test_comments_of_params_are_read_whole():
    text = 'one:  # of a section\n  a: "x"  # b # c\n  d: 1   # first,\n         # second (#885)\n  e: [0, 1]\n'
    expected = {"one": "of a section", "one.a": "b # c", "one.d": "first, second (#885)", "one.e": ""}
    assert reference.comments(text) == expected


def test_every_stage_metric_and_claim_has_its_line():
    """Of the last run, whose reports are in git, and of the sources of the claims."""
    described = (ROOT / "docs/stages.md").read_text(encoding="utf-8")
    for stage, metrics in read_yaml(ROOT / "reports/report/stages.json").items():
        part = described.split(f"\n## {stage}\n")[1].split("\n## ")[0]
        assert [key for key in metrics if f"`{key}`" not in part] == []
    sources = "".join(
        (ROOT / f"fairway/proof/{name}.py").read_text(encoding="utf-8") for name in ("claims", "rules", "data_claims")
    )
    claims = re.findall(r'(?:Claim\([A-Z_]+, |claim = )"([^"]+)"', sources)
    assert len(claims) == 18  # and two of time
    page = (ROOT / "docs/certificate.md").read_text(encoding="utf-8")
    assert [
        claim for claim in [*claims, "training keeps to its time", "evaluation keeps to its time"] if claim not in page
    ] == []
