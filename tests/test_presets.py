"""Presets and scales: exact sizes, every combination valid, params.yaml keeps its comments, mistakes change nothing."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fairway import presets
from fairway.errors import InputError
from fairway.params import read_yaml

ROOT = Path(__file__).resolve().parents[1]
PRESETS = [name for name, path in presets.overlays().items() if presets.is_preset(path)]
SCALES = [name for name in presets.overlays() if name not in (*PRESETS, "challenge")]
LINES = 40  # of a preset's file: it is the idea of its pull request


@pytest.fixture
def params(tmp_path, monkeypatch) -> Path:
    """A copy of the shipped params.yaml in a folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path / "params.yaml"


@pytest.fixture
def folder(tmp_path) -> Path:
    """An empty folder for overlays."""
    (tmp_path / "presets").mkdir()
    return tmp_path / "presets"


def path_of(name: str) -> Path:
    return ROOT / f"presets/{name}.yaml"


def overlay(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(params: Path, *chosen: Path) -> str:
    """The sentence with which a merge ends that leaves everything as it was."""
    before, files = params.read_bytes(), sorted(params.parent.iterdir())
    with pytest.raises(InputError) as error:
        presets.merge(params, list(chosen))
    assert params.read_bytes() == before and sorted(params.parent.iterdir()) == files
    return str(error.value)


def comments(path: Path) -> list[str]:
    return [line[line.index("#") :] for line in path.read_text(encoding="utf-8").splitlines() if "#" in line]


def sizes(name: str) -> tuple[int, int]:
    """Parameters that a preset's first comment names, without and with multi-token heads: those of the system's log or code."""
    said = re.search(r"Full size: ([\d,]+) parameters(?:, ([\d,]+) with the multi-token heads)?\.$", top(name), re.MULTILINE)
    count, in_training = (int(number.replace(",", "")) for number in said.groups(said[1]))
    return count, in_training


def top(name: str) -> str:
    return path_of(name).read_text(encoding="utf-8").partition("extends:")[0]


def test_presets_and_scales_are_told_apart():
    assert {"baseline", "pr549"} <= set(PRESETS) and {"laptop", "gpu1"} <= set(SCALES)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_its_systems_size_in_few_lines(name):
    assert presets.parameters(path_of(name)) == sizes(name)
    assert len(path_of(name).read_text(encoding="utf-8").splitlines()) <= LINES


def test_the_list_names_each_overlay_with_its_size_and_its_first_line(capsys):
    presets.main(["list"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert [line.split()[0] for line in lines] == ["preset", *PRESETS, "scale", *SCALES]
    for name in PRESETS + SCALES:
        line = next(line for line in lines if line.split()[0] == name)
        first = path_of(name).read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith("# ") and first[2:] in line
        assert name in SCALES or line.split()[1] == f"{sizes(name)[0]:,}"
    assert "(28,087,499 with its multi-token heads)" in next(line for line in lines if line.startswith("pr1185"))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_valid_alone_and_at_every_scale(params, name):
    model = presets.content(path_of(name))["model"]
    for scales in ([], *([scale] for scale in SCALES)):
        presets.merge(params, [path_of(chosen) for chosen in [name, *scales]])  # fairway.sections.check is part of it
        assert scales == ["laptop"] or read_yaml(params)["model"] == model


@pytest.mark.parametrize("name", PRESETS)
def test_merging_keeps_every_comment_and_every_other_line(params, name):
    before = params.read_text(encoding="utf-8").splitlines()
    changed = presets.merge(params, [path_of(name), path_of("laptop")])
    after = params.read_text(encoding="utf-8").splitlines()
    assert comments(params) == comments(ROOT / "params.yaml")
    keys = [line.split(":")[0] for line in before]
    assert keys == [line.split(":")[0] for line in after]
    differing = [key for key, old, new in zip(keys, before, after, strict=True) if old != new]
    assert [line.split(":")[0].split(".")[1] for line in changed] == [key.strip() for key in differing]


def test_merging_again_changes_nothing(params):
    chosen = [path_of("pr1185"), path_of("laptop")]
    assert presets.merge(params, chosen)
    once = params.read_bytes()
    assert presets.merge(params, chosen) == [] and params.read_bytes() == once


def test_the_laptop_is_what_is_shipped_byte_for_byte(params):
    assert presets.merge(params, [path_of("laptop")]) == []
    assert params.read_bytes() == (ROOT / "params.yaml").read_bytes()


def test_nothing_of_one_preset_or_scale_is_left_by_the_next():
    """Whatever any overlay sets, every preset sets, itself or in what it extends."""
    contents = {name: presets.content(path_of(name)) for name in PRESETS + SCALES}
    keys = {(section, key) for content in contents.values() for section, values in content.items() for key in values}
    for name in PRESETS:
        assert {(section, key) for section, key in keys if key not in contents[name][section]} == set(), name


def test_an_overlay_changes_what_it_extends(params, folder, monkeypatch):
    monkeypatch.setattr(presets, "FOLDER", folder)
    (folder / "root.yaml").write_text("model:\n  layers: 3\ntrain:\n  steps: 5\n  seed: 6\n", encoding="utf-8")
    (folder / "middle.yaml").write_text("extends: root\ntrain:\n  seed: 7\neval:\n  batch: 2\n", encoding="utf-8")
    mine = overlay(folder, "# mine\nextends: middle\neval:\n  batch: 3\n")
    assert presets.lineage(mine) == [folder / name for name in ("root.yaml", "middle.yaml", "mine.yaml")]
    changes = {"model": presets.OFF | {"layers": 3}, "train": {"steps": 5, "seed": 7}, "eval": {"batch": 3}}
    assert presets.content(mine) == changes
    presets.merge(params, [mine])
    merged, shipped = read_yaml(params), read_yaml(ROOT / "params.yaml")
    assert merged == shipped | {section: shipped[section] | values for section, values in changes.items()}
    assert shipped["model"]["gated_attention"] and not merged["model"]["gated_attention"]  # which nothing names


def test_a_section_of_a_preset_that_is_no_mapping_is_named(folder):
    with pytest.raises(InputError, match=r"presets/mine.yaml: section 'train' must be a mapping of keys to values, found 3"):
        presets.content(overlay(folder, "extends: pr549\ntrain: 3\n"))


def test_a_preset_that_extends_a_scale_has_a_size(folder):
    tied, _ = presets.parameters(overlay(folder, "extends: laptop\n"))
    untied, _ = presets.parameters(overlay(folder, "extends: laptop\nmodel:\n  tied_embeddings: false\n"))
    assert untied - tied == 1024 * 256


@pytest.mark.parametrize(
    ("base", "sentence"),
    [
        ("pr54", "presets/mine.yaml: there is no preset or scale 'pr54'; the nearest is 'pr549' of mine, pr549"),
        ("mine", "presets/mine.yaml: extends 'mine', which extends it in turn; expected a base that does not"),
        ("pr549", "presets/pr549.yaml: extends 'mine', which extends it in turn; expected a base that does not"),
    ],
)
def test_a_base_that_is_unknown_or_in_a_circle_is_named(params, folder, monkeypatch, base, sentence):
    monkeypatch.setattr(presets, "FOLDER", folder)
    (folder / "pr549.yaml").write_text("extends: mine\n", encoding="utf-8")
    mine = overlay(folder, f"extends: {base}\n")
    with pytest.raises(InputError) as error:
        presets.content(mine)
    assert str(error.value).startswith(sentence)
    assert refused(params, mine).startswith(sentence)


def test_changes_are_printed(params, capsys):
    presets.main(["baseline"])
    lines = capsys.readouterr().out.splitlines()
    old = read_yaml(ROOT / "params.yaml")["train"]["steps"]
    assert f"train.steps: {old} → 20000" in lines and "model.smear_gate: true → false" in lines
    presets.main(["baseline"])
    assert capsys.readouterr().out == "params.yaml: already so\n"


def test_later_overlays_win(params):
    presets.merge(params, [path_of("pr885"), path_of("laptop"), path_of("baseline")])
    assert read_yaml(params)["model"]["layers"] == 9


def test_an_unknown_name_is_answered_with_the_nearest(params):
    known = ", ".join(presets.overlays())
    with pytest.raises(InputError, match=re.escape(f"no preset or scale 'labtop'; the nearest is 'laptop' of {known}")):
        presets.main(["pr885", "labtop"])
    with pytest.raises(InputError, match=f"no preset or scale is named; expected 'list', or any of {known}"):
        presets.main([])
    assert params.read_bytes() == (ROOT / "params.yaml").read_bytes()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("train:\n  stepps: 1\n", "unknown key 'train.stepps'; the nearest valid key is 'train.steps'"),
        ("trian:\n  steps: 1\n", "unknown section 'trian'; valid sections are data, tokenize, model"),
        ("train:\n  steps: many\n", "'train.steps' is 'many'; expected a whole number at least 1"),
        ("train:\n", "section 'train' must be a mapping of keys to values, found None"),
    ],
)
def test_a_mistake_in_an_overlay_names_its_file(params, text, sentence):
    found = refused(params, path_of("pr885"), overlay(params.parent, text))
    assert found.startswith(f"presets/mine.yaml: {sentence}")


def test_overlays_that_contradict_each_other_change_nothing(params):
    mine = overlay(params.parent, "quant:\n  bits: 4\n")
    assert refused(params, path_of("pr549"), mine).startswith("qat.bits is 6 and the quant section makes it 4")


def test_a_mistake_that_was_there_before_is_not_an_overlays(params):
    params.write_text(params.read_text(encoding="utf-8").replace("max_order:", "max_odrer:"), encoding="utf-8")
    assert refused(params, path_of("laptop")).startswith(f"{params}: unknown key 'ngram.max_odrer'")


def test_a_key_that_is_there_twice_is_named_with_its_line(params):
    text = params.read_text(encoding="utf-8").replace("train:\n", "train:\n  seed: 1\n")
    params.write_text(text, encoding="utf-8")
    line = text.splitlines().index("train:") + 3
    assert refused(params, path_of("pr885")) == f"{params}, line {line}: 'seed' is there twice; remove one of them"


def test_merging_needs_no_torch(params):
    code = "import sys; from fairway import presets; presets.main(['pr885', 'laptop']); sys.exit('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code], cwd=params.parent, env=environment, capture_output=True, check=False)
    assert ended.returncode == 0 and b"quant.bits" in ended.stdout
