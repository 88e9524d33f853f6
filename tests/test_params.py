"""The loader of params.yaml: what it reads as what, and the one sentence for each way to get it wrong."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from fairway.bounds import bounded
from fairway.errors import InputError
from fairway.lm.config import Model
from fairway.mixture.config import Cache, Ngram
from fairway.params import load, parse, read_yaml
from fairway.quant.config import Quant
from fairway.score.config import Eval, Settings, Ttt
from fairway.sections import SECTIONS
from fairway.submission.packing import SETTINGS_BYTES
from fairway.train.config import PrequantTtt, Qat, Train

REPOSITORY = Path(__file__).parent.parent


@dataclass(frozen=True)
class Oven:
    degrees: float = bounded(200.0, gt=0, le=300)
    trays: int = bounded(1, ge=1, le=4)
    door_width: int = bounded(60, multiple_of=5)
    mode: Literal["fan", "grill"] = "fan"
    level: Literal[0, 2, 3] = 0
    light: bool = False
    name: str = "oven"
    shelves: list[str] = bounded(["a"], min_length=1)
    minutes: list[int] = bounded([])


GOOD = {
    "degrees": 180.0,
    "trays": 2,
    "door_width": 60,
    "mode": "fan",
    "level": 2,
    "light": True,
    "name": "big",
    "shelves": ["a"],
    "minutes": [5, 0],
}


def sentence(values: object, cls: type = Oven, section: str = "oven") -> str:
    with pytest.raises(InputError) as error:
        parse(values, section, cls, "params.yaml")
    return str(error.value)


def test_a_good_section_becomes_its_frozen_type():
    oven = parse(GOOD, "oven", Oven)
    assert dataclasses.asdict(oven) == GOOD
    with pytest.raises(dataclasses.FrozenInstanceError):
        oven.trays = 3


def test_a_whole_number_is_a_number_but_not_the_other_way_round():
    assert parse(GOOD | {"degrees": 200}, "oven", Oven).degrees == 200.0
    assert (
        sentence(GOOD | {"trays": 2.0}) == "params.yaml: 'oven.trays' is 2.0; expected a whole number at least 1 and at most 4"
    )


def test_an_unknown_key_is_named_with_the_nearest_valid_one():
    assert sentence(GOOD | {"tray": 1}) == "params.yaml: unknown key 'oven.tray'; the nearest valid key is 'oven.trays'"
    assert "unknown key 'oven.zzz'; the nearest valid key is 'oven." in sentence(GOOD | {"zzz": 1})
    assert "unknown key 'oven.7'" in sentence(GOOD | {7: 1})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("degrees", 0, "is 0; expected a number above 0 and at most 300"),
        ("degrees", 300.5, "is 300.5; expected a number above 0 and at most 300"),
        ("degrees", float("inf"), "is inf; expected a number above 0 and at most 300"),
        ("degrees", float("nan"), "is nan; expected a number above 0 and at most 300"),
        ("degrees", "180", "is '180'; expected a number above 0 and at most 300"),
        ("trays", 5, "is 5; expected a whole number at least 1 and at most 4"),
        ("trays", True, "is True; expected a whole number at least 1 and at most 4"),
        ("trays", None, "is None; expected a whole number at least 1 and at most 4"),
        ("door_width", 61, "is 61; expected a whole number a multiple of 5"),
        ("mode", "steam", "is 'steam'; expected one of fan, grill"),
        ("level", 1, "is 1; expected one of 0, 2, 3"),
        ("level", "2", "is '2'; expected one of 0, 2, 3"),
        ("light", "on", "is 'on'; expected true or false"),
        ("light", 1, "is 1; expected true or false"),
        ("name", 3, "is 3; expected text"),
        ("shelves", [], "is []; expected a list of texts of length at least 1"),
        ("shelves", "a", "is 'a'; expected a list of texts of length at least 1"),
        ("minutes", 5, "is 5; expected a list of whole numbers"),
        ("minutes", "[5]", "is '[5]'; expected a list of whole numbers"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(key, value, expected):
    assert sentence(GOOD | {key: value}) == f"params.yaml: 'oven.{key}' {expected}"


def test_a_wrong_value_in_a_list_is_named_with_its_place():
    assert sentence(GOOD | {"shelves": ["a", 2]}).startswith("params.yaml: 'oven.shelves.1' is 2; expected a list of texts")
    assert sentence(GOOD | {"minutes": [5, 0.5]}) == "params.yaml: 'oven.minutes.1' is 0.5; expected a list of whole numbers"


def test_a_missing_key_is_named_with_what_is_allowed():
    values = {key: value for key, value in GOOD.items() if key != "trays"}
    assert sentence(values) == "params.yaml: key 'oven.trays' is missing; expected a whole number at least 1 and at most 4"


def test_a_section_must_be_a_mapping():
    assert sentence([1]) == "params.yaml: section 'oven' must be a mapping of keys to values, found [1]"
    assert "found None" in sentence(None)


def test_a_missing_section_is_named_with_those_that_are_there(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("hob: {}\n2: {}\n")
    with pytest.raises(InputError, match=r"params.yaml: section 'oven' is missing; found hob, 2$"):
        load(path, "oven", Oven)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.yaml: cannot be read \(No such file or directory\)"):
        read_yaml(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"oven:\n  a: 1\n  b: c: 2\n", r"params.yaml, line 3: not valid YAML \(mapping values are not allowed here\)"),
        (b"oven: {a: \xff}\n", r"params.yaml: not valid YAML \('utf-8' codec can't decode"),
        (b"\0", r'params.yaml: not valid YAML \(.+ #x0000: special characters .+ "<unicode string>", position 0\)$'),
        (b"- a\n", r"params.yaml: expected a mapping of sections, found list"),
        (b"", r"params.yaml: expected a mapping of sections, found NoneType"),
    ],
)
def test_a_file_that_is_not_a_mapping_in_yaml(tmp_path, content, message):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_yaml(path)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("-2.5e+2", -250.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("7", 7),
        ("-7", -7),
        ("true", True),
        ("False", False),
        ("on", "on"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("off", "off"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("null", None),
        ("'1e-3'", "1e-3"),
        (".inf", float("inf")),
        ("abc", "abc"),
    ],
)
def test_scalars_are_read_as_yaml_1_2_reads_them(tmp_path, written, read):
    path = tmp_path / "params.yaml"
    path.write_text(f"key: {written}\n")
    value = read_yaml(path)["key"]
    assert value == read and type(value) is type(read)


def test_infinity_in_the_file_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(
        "oven: {degrees: .inf, trays: 1, door_width: 5, mode: fan, level: 0, light: true, name: a, shelves: [a]}\n",
        encoding="utf-8",
    )
    with pytest.raises(InputError, match=r"'oven\.degrees' is inf; expected a number above 0 and at most 300"):
        load(path, "oven", Oven)


def section(cls: type, name: str, **changes):
    return parse(read_yaml(REPOSITORY / "params.yaml")[name] | changes, name, cls)


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("model", Model),
        ("train", Train),
        ("prequant_ttt", PrequantTtt),
        ("quant", Quant),
        ("eval", Eval),
        ("ttt", Ttt),
        ("ngram", Ngram),
    ],
)
def test_the_shipped_params_fit_and_every_key_is_needed(name, cls):
    values = read_yaml(REPOSITORY / "params.yaml")[name]
    parse(values, name, cls)
    for key in values:
        with pytest.raises(InputError, match=f"key '{name}.{key}' is missing"):
            parse({other: value for other, value in values.items() if other != key}, name, cls)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 250, "heads": 4}, "model.width 250 is not divisible by model.heads 4"),
        ({"heads": 4, "kv_heads": 3}, "model.heads 4 is not divisible by model.kv_heads 3"),
        ({"width": 256, "heads": 4, "rope_dims": 66}, "model.rope_dims 66 exceeds the width of a head, 64"),
        ({"layers": 5, "xsa_layers": 6}, "model.xsa_layers 6 exceeds model.layers 5"),
        ({"bigram_buckets": 1}, "model.bigram_buckets is 1; expected 0 (off) or at least 2, one of them for the start"),
        ({"rope_dims": 7}, "params: 'model.rope_dims' is 7; expected a whole number at least 0 and a multiple of 2"),
    ],
)
def test_sizes_of_the_network_that_do_not_fit_together(changes, message):
    with pytest.raises(InputError) as error:
        section(Model, "model", **changes)
    assert str(error.value) == message


def test_sizes_at_the_edge_fit():
    model = section(Model, "model", width=256, heads=4, kv_heads=4, mlp_multiple=3.0, layers=6, xsa_layers=6, bigram_buckets=0)
    assert (model.head_width, model.mlp_width) == (64, 768)
    assert section(Model, "model", width=250, heads=5, kv_heads=1, rope_dims=16, mlp_multiple=2.5).mlp_width == 625


def test_a_step_is_a_whole_number_of_sequences():
    with pytest.raises(InputError, match=r"train.tokens_per_step 1000 is not a multiple of train.sequence_length 256"):
        section(Train, "train", tokens_per_step=1000, sequence_length=256)


def test_a_context_beyond_the_training_length_must_be_asked_for():
    values = {"context": 257, "stride": 64, "allow_long_context": False}
    with pytest.raises(InputError, match=r"eval.context 257 exceeds the training length 256"):
        section(Eval, "eval", **values).check(256)
    section(Eval, "eval", **(values | {"allow_long_context": True})).check(256)
    section(Eval, "eval", **(values | {"context": 256})).check(256)


def test_a_stride_beyond_the_context_would_skip_tokens():
    with pytest.raises(InputError, match=r"eval.stride 65 exceeds eval.context 64: tokens would be skipped"):
        section(Eval, "eval", method="windows", context=64, stride=65).check(256)
    section(Eval, "eval", method="streaming", context=64, stride=65).check(256)


def test_defaults_are_valid_and_no_two_values_share_a_list():
    for cls in SECTIONS.values():
        assert cls() == cls()
    one, other = Quant(), Quant()
    one.finer_layers.append(0)
    assert other.finer_layers == [] == Quant().finer_layers


def test_what_is_not_named_is_off():
    settings, train, qat, model = Settings(), Train(), Qat(), Model()
    assert settings.ttt.optimizer == settings.ngram.mixture == PrequantTtt().source == train.average == "none"
    assert not any((settings.cache.tokens, train.grokfast_weight, train.mtp_heads, train.distill_weight, qat.start))
    assert not any(getattr(model, name) for name, kind in Model.__annotations__.items() if kind is bool and "tied" not in name)


def test_settings_survive_json():
    settings = Settings(section(Eval, "eval"), section(Ttt, "ttt"), section(Cache, "cache"), section(Ngram, "ngram"))
    assert Settings.from_json(settings.to_json()) == Settings.from_json(dataclasses.asdict(settings)) == settings


def test_only_settings_that_are_not_the_defaults_are_written():
    """So that a new param takes no room in the artifacts that do not use it."""
    assert Settings().to_json() == {"eval": {}, "ttt": {}, "cache": {}, "ngram": {}}
    settings = Settings(cache=Cache(tokens=5), ngram=Ngram(mixture="tilt", tilt=0.5))
    assert settings.to_json() == {"eval": {}, "ttt": {}, "cache": {"tokens": 5}, "ngram": {"mixture": "tilt"}}
    shipped = Settings(section(Eval, "eval"), section(Ttt, "ttt"), section(Cache, "cache"), section(Ngram, "ngram"))
    assert len(json.dumps(shipped.to_json())) < SETTINGS_BYTES / 2
