"""dvc.yaml says the truth: each stage depends on exactly the code it imports, by one word in five places (DESIGN 1)."""

from pathlib import Path

import pytest
import yaml

from fairway.dependencies import updated
from fairway.params import read_yaml

ROOT = Path(__file__).resolve().parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def test_code_dependencies_are_the_import_closure():
    """`python -m fairway.dependencies` writes them."""
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert text == updated(text, ROOT)


def test_editing_the_decoder_quantises_nothing_again():
    packages = {path.split("/")[1] for path in STAGES["quant"]["deps"] if path.startswith("fairway/")}
    assert not packages & {"mixture", "score", "submission"}


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_depends_on_code_twice(stage):
    assert len(set(STAGES[stage]["deps"])) == len(STAGES[stage]["deps"])


@pytest.mark.parametrize("stage", STAGES)
def test_one_word_five_places(stage):
    assert STAGES[stage]["cmd"] == f"python -m stages.{stage}"
    assert (ROOT / "stages" / f"{stage}.py").is_file()
    entries = STAGES[stage]["outs"] + STAGES[stage].get("metrics", [])
    written = [path if isinstance(path, str) else next(iter(path)) for path in entries]
    folders = (f"artifacts/{stage}/", f"reports/{stage}")
    assert all(path.startswith((*folders, "reports/summary", "reports/index.html")) for path in written)


@pytest.mark.parametrize("stage", sorted(set(STAGES) - {"report"}))
def test_every_stage_that_takes_time_is_kept_in_the_run_cache(stage):
    """DVC does not save a run with an output that is neither cached nor a metric or plot (dvc/stage/__init__.py, 3.67)."""
    assert all(isinstance(entry, str) for entry in STAGES[stage]["outs"])


def test_no_stage_but_certify_reads_the_witness():
    path = "artifacts/tokenize/witness_documents.jsonl.zst"
    assert path in STAGES["tokenize"]["outs"]
    assert [name for name, stage in STAGES.items() if any(path.startswith(dep) for dep in stage["deps"])] == ["certify"]


def test_every_section_of_params_belongs_to_a_stage():
    declared = {key.split(".")[0] for stage in STAGES.values() for key in stage.get("params", [])}
    assert declared == set(read_yaml(ROOT / "params.yaml"))


def test_every_file_a_stage_reads_from_another_is_that_stages_output():
    outputs = set()
    for stage in STAGES.values():
        for entry in stage["outs"] + stage.get("metrics", []) + stage.get("plots", []):
            outputs.add(entry if isinstance(entry, str) else next(iter(entry)))
    for stage in STAGES.values():
        made = [path for path in stage["deps"] if path.startswith(("artifacts/", "reports/"))]
        assert set(made) <= outputs


def test_packages_are_empty_so_that_no_import_brings_all_of_fairway():
    assert [path for path in ROOT.glob("fairway/**/__init__.py") if path.read_text(encoding="utf-8")] == []
