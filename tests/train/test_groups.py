"""One table decides who trains what: every parameter in one group, at the rate and decay of its kind."""

import dataclasses

import pytest
import torch

from fairway.lm.model import GPT
from fairway.lm.parameters import kind_of
from fairway.optim.muon import COEFFICIENTS, Muon
from fairway.train.groups import in_decoder, optimizers, parameter_groups
from fairway.train.objective import Objective
from fairway.train.step import schedule

HEADS = {"heads.0", "heads.1", "model.unembedding.weight"}
TABLES = {"model.stream.embedding.weight", "model.stream.bigram.table.weight", "model.value_embedding.table.weight"}
LINEAR = ("query", "key", "value", "output", "up", "gate", "down", "projection")


@pytest.fixture
def objective(tiny, train_params, qat_params) -> Objective:
    """Everything that may have parameters is on: an untied head, two further heads, routers, gates."""
    model = dataclasses.replace(tiny, tied_embeddings=False, mod_layers=[1, 2], activation="square_glu")
    return Objective(GPT(model), train_params(mtp_heads=2), qat_params())


def settings(objective, config) -> dict[str, tuple[str, float, float]]:
    """Name of each parameter → its optimizer, base rate and base weight decay."""
    names = {parameter: name for name, parameter in objective.named_parameters()}
    return {
        names[parameter]: (optimizer, group["base_lr"], group["base_weight_decay"])
        for optimizer, groups in parameter_groups(objective, config).items()
        for group in groups
        for parameter in group["params"]
    }


def test_every_parameter_is_in_exactly_one_group(objective, train_params):
    config = train_params(decoder_lr_multiplier=2.0)
    groups = [group for groups in parameter_groups(objective, config).values() for group in groups]
    inside = sorted(id(parameter) for group in groups for parameter in group["params"])
    assert inside == sorted(id(parameter) for parameter in objective.parameters())


def test_kinds_by_name(objective):
    """Heads and tables by name, matrices are the weights of all other linear layers, everything else is a vector."""
    for name, parameter in objective.named_parameters():
        linear = name.endswith(tuple(f".{layer}.weight" for layer in LINEAR))
        expected = "head" if name in HEADS else "table" if name in TABLES else "matrix" if linear else "vector"
        assert kind_of(name, parameter.shape) == expected, name
    names = {name for name, _ in objective.named_parameters()}
    assert names >= HEADS | TABLES
    for vector in ("router.direction_D", "router.threshold", "residual_mix", "attention.gate_HD", "attention.query_gain"):
        assert kind_of(f"model.blocks.1.{vector}", objective.get_parameter(f"model.blocks.1.{vector}").shape) == "vector"


def test_each_kind_has_the_optimizer_rate_and_decay_of_its_row(objective, train_params):
    config = train_params(muon_lr=0.1, embedding_lr=0.2, head_lr=0.3, scalar_lr=0.4, weight_decay=0.5, adam_weight_decay=0.6)
    rows = {
        "matrix": ("muon", 0.1, 0.5),
        "table": ("adamw", 0.2, 0.6),
        "head": ("adamw", 0.3, 0.6),
        "vector": ("adamw", 0.4, 0.6),
    }
    found = settings(objective, config)
    for name, parameter in objective.named_parameters():
        assert found[name] == rows[kind_of(name, parameter.shape)], name


def test_decoder_multiplier_doubles_the_second_half_of_the_blocks_and_nothing_else(objective, train_params):
    """Three layers: the second half begins at block 1, in matrices and vectors alike."""
    once, twice = (settings(objective, train_params(decoder_lr_multiplier=factor)) for factor in (1.0, 2.0))
    factors = {name: twice[name][1] / once[name][1] for name in once}
    assert factors == {name: 2.0 if name.startswith(("model.blocks.1.", "model.blocks.2.")) else 1.0 for name in once}
    assert {name: row[2] for name, row in twice.items()} == {name: row[2] for name, row in once.items()}


@pytest.mark.parametrize(("layers", "first"), [(1, 0), (2, 1), (5, 2), (22, 11)])
def test_the_second_half_starts_at_half_the_layers_rounded_down(layers, first):
    assert [layer for layer in range(layers) if in_decoder(f"model.blocks.{layer}.attention.key.weight", layers)] == list(
        range(first, layers)
    )
    assert not in_decoder("model.skip_weights", layers)


def test_optimizers_get_their_own_params(objective, train_params):
    config = train_params(orthogonaliser="polar_express", row_normalise=True, momentum=0.7, adam_beta1=0.8, adam_beta2=0.99)
    muon, adamw = optimizers(objective, config, torch.bfloat16)
    assert isinstance(muon, Muon) and isinstance(adamw, torch.optim.AdamW)
    assert (muon.dtype, muon.coefficients, muon.row_normalise) == (torch.bfloat16, COEFFICIENTS["polar_express"], True)
    assert {group["momentum"] for group in muon.param_groups} == {0.7}
    assert {group["betas"] for group in adamw.param_groups} == {(0.8, 0.99)}


def test_schedules_multiply_base_rates_and_base_decays(begin):
    """At 0.75 of training rates stand at half; decays are 3/8 of the way from 1 to 0.2."""
    run = begin(wall_clock_seconds=100.0, weight_decay_final=0.2, weight_decay_taper=0.4, decoder_lr_multiplier=2.0)
    run.seconds = 75.0
    schedule(run)
    for group in run.muon.param_groups + run.adamw.param_groups:
        assert group["lr"] == pytest.approx(0.5 * group["base_lr"])
        assert group["weight_decay"] == pytest.approx(0.7 * group["base_weight_decay"])
    assert {group["base_lr"] for group in run.muon.param_groups} == {0.02, 0.04}
