"""The ablation table: every variant is valid and changes something, and the table pairs by seed."""

import pandas as pd
import pytest

from bench import ablation
from fairway.lm.config import Model
from fairway.params import parse
from fairway.quant.config import Quant
from fairway.train.config import Qat, Train

TYPES = {"model": Model, "train": Train, "qat": Qat, "quant": Quant}


def sections(name: str) -> dict:
    params = ablation.params_of(ablation.VARIANTS[name])
    return {section: parse(params[section], section, cls) for section, cls in TYPES.items()}


@pytest.mark.parametrize("name", ablation.VARIANTS)
def test_a_variant_is_valid_and_is_not_the_default(name):
    own = sections(name)
    own["qat"].check(own["quant"])
    assert (own == sections("default")) == (name == "default")


def run(name: str, seed: int, bpb: float) -> dict:
    return {"name": name, "seed": seed, "bpb": bpb, "rounded_bpb": bpb + 0.01, "parameters": 7, "step_ms": 10.0 * seed}


def test_differences_are_paired_by_seed_and_unclear_ones_are_named():
    clear, noisy, *_ = (name for name in ablation.VARIANTS if name != "default")
    values = {"default": (1.5, 1.7), clear: (1.4, 1.601), noisy: (1.49, 1.72)}
    runs = pd.DataFrame([run(name, seed, bpb) for name, pair in values.items() for seed, bpb in enumerate(pair, start=1)])
    rows = ablation.table(runs).set_index("technique")
    assert rows.loc[clear, "difference"] == pytest.approx(-0.0995)
    assert rows.loc[noisy, "difference"] == pytest.approx(0.005)
    assert rows.loc[clear, "time"] == 1.0 and rows.loc[clear, "gap"] == pytest.approx(0.01)
    assert ablation.unclear(ablation.table(runs)) == [noisy]


def test_finished_runs_are_not_run_again(tmp_path):
    path = tmp_path / "runs.jsonl"
    row = pd.Series(run("default", 1, 1.5)).to_json()
    path.write_text(row + "\n", encoding="utf-8")
    ablation.work(path, [("default", 1)], workers=1)
    assert path.read_text(encoding="utf-8") == row + "\n"
    assert len(ablation.finished(path)) == 1
