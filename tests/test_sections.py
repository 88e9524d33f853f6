"""params.yaml as a whole: the shipped one fits, and a mistake anywhere stops every stage with one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fairway.errors import InputError
from fairway.params import read_yaml
from fairway.sections import SECTIONS, check

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = read_yaml(ROOT / "params.yaml")


def written(folder: Path, **changes) -> str:
    """The path of the shipped params with some sections replaced; None takes a section away."""
    sections = {name: values for name, values in (SHIPPED | changes).items() if values is not None}
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(sections, sort_keys=False), encoding="utf-8")
    return str(path)


def sentence(path: str) -> str:
    with pytest.raises(InputError) as error:
        check(path)
    return str(error.value).removeprefix(f"{path}: ")


def run(folder: Path, module: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_shipped_params_fit():
    check(str(ROOT / "params.yaml"))


@pytest.mark.parametrize(("context", "length"), [(257, 256), (256, 128)])
def test_a_context_longer_than_training_is_refused_unless_asked_for(tmp_path, context, length):
    train = SHIPPED["train"] | {"sequence_length": length, "tokens_per_step": 4 * length}
    wanted = SHIPPED["eval"] | {"context": context, "stride": 64, "allow_long_context": False}
    assert sentence(written(tmp_path, train=train, eval=wanted)) == (
        f"eval.context {context} exceeds the training length {length}, where scores fall apart; "
        "lower it, or set eval.allow_long_context: true"
    )
    check(written(tmp_path, train=train, eval=wanted | {"allow_long_context": True}))
    check(written(tmp_path, train=train, eval=wanted | {"context": length}))


@pytest.mark.parametrize("layer", [6, -7])
def test_finer_layers_are_layers_of_the_model(tmp_path, layer):
    model, quant = SHIPPED["model"] | {"layers": 6}, SHIPPED["quant"] | {"allocation": "sensitivity"}
    assert sentence(written(tmp_path, model=model, quant=quant | {"finer_layers": [0, layer]})) == (
        f"quant.finer_layers is [0, {layer}]; a stack of 6 has layers 0 to 5"
    )
    check(written(tmp_path, model=model, quant=quant | {"finer_layers": [-6, 5]}))


def test_an_unknown_section_is_named_with_the_valid_ones(tmp_path):
    path = written(tmp_path, n_gram=SHIPPED["ngram"], ngram=None)
    assert sentence(path) == f"unknown section 'n_gram'; valid sections are {', '.join(SECTIONS)}"


def test_a_missing_section_is_named(tmp_path):
    assert sentence(written(tmp_path, certify=None)).startswith("section 'certify' is missing; found data, tokenize,")


@pytest.mark.parametrize("name", SECTIONS)
def test_a_key_too_many_in_any_section_is_found(tmp_path, name):
    path = written(tmp_path, **{name: SHIPPED[name] | {"zzz": 1}})
    assert sentence(path).startswith(f"unknown key '{name}.zzz'; the nearest valid key is '{name}.")


def test_a_stage_ends_at_a_misspelt_key_of_another_section(tmp_path):
    misspelt = {key.replace("calibration_tokens", "calibration_tokns"): value for key, value in SHIPPED["quant"].items()}
    written(tmp_path, quant=misspelt)
    ended = run(tmp_path, "stages.eval_ngram")
    expected = "unknown key 'quant.calibration_tokns'; the nearest valid key is 'quant.calibration_tokens'"
    assert ended.stderr == f"error: params.yaml: {expected}\n"
    assert ended.returncode == 1 and ended.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_the_check_alone_is_silent_where_all_is_well(tmp_path):
    written(tmp_path)
    ended = run(tmp_path, "fairway.sections")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_without_params_a_stage_says_so(tmp_path):
    ended = run(tmp_path, "fairway.sections")
    assert ended.returncode == 1
    assert ended.stderr == (
        "error: params.yaml: cannot be read (No such file or directory); it holds every param of the pipeline\n"
    )
