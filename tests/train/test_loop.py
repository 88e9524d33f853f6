"""A training step: loss, optimizers and schedule against plain versions; runs that repeat and resume bit by bit."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from fairway.errors import InputError
from fairway.lm.model import GPT
from fairway.optim.muon import Muon
from fairway.train import resume
from fairway.train.config import Train
from fairway.train.loader import WindowLoader
from fairway.train.loop import Run, compiled, cross_entropy, optimizers, precision, train_step

CPU = torch.device("cpu")
CONFIG = Train(
    seed=1,
    steps=10,
    wall_clock_seconds=1e9,
    tokens_per_step=64,
    sequence_length=16,
    muon_lr=0.02,
    embedding_lr=0.03,
    scalar_lr=0.01,
    momentum=0.95,
    momentum_warmup_steps=4,
    weight_decay=0.04,
    gradient_clip=1.0,
    warmdown_fraction=0.5,
    ema_decay=0.9,
    precision="fp32",
    compile=False,
    checkpoint_seconds=60.0,
)
TEXT = np.frombuffer(b"the cat sat on the mat; " * 100, dtype=np.uint8).astype(np.uint16) % 64
LOADER = WindowLoader(TEXT, CONFIG.sequence_length, 4, CONFIG.seed)


def start(tiny, config: Train = CONFIG) -> Run:
    model = GPT(tiny)
    model.initialise(config.seed)
    return Run.start(model, config, torch.float32)


def steps(run: Run, count: int, config: Train = CONFIG, loader: WindowLoader = LOADER) -> list[float]:
    losses = []
    for _ in range(count):
        loss = train_step(run, loader.batch(run.step), config, lambda windows: cross_entropy(run.model, windows, torch.float32))
        run.history.append({"step": run.step, "loss": loss})
        losses.append(loss)
    return losses


def weights(run: Run) -> bytes:
    tensors = [*run.model.state_dict().values(), *run.average.shadow.values()]
    return b"".join(tensor.numpy().tobytes() for tensor in tensors)


def test_cross_entropy_is_the_mean_surprise_of_the_targets(tiny, shaken):
    model, windows = shaken(tiny), LOADER.batch(0)
    probabilities = torch.softmax(model(windows[:, :-1]), -1)
    surprises = [-probabilities[b, t, windows[b, t + 1]].log() for b in range(4) for t in range(16)]
    torch.testing.assert_close(cross_entropy(model, windows, torch.float32), torch.stack(surprises).mean())


def test_cross_entropy_in_bf16_is_near_and_not_the_same(tiny, shaken):
    model, windows = shaken(tiny), LOADER.batch(0)
    exact, rounded = (cross_entropy(model, windows, dtype).item() for dtype in (torch.float32, torch.bfloat16))
    assert exact != rounded and abs(exact - rounded) < 0.05


def test_each_parameter_is_in_one_optimizer_and_matrices_of_linear_layers_are_in_muon(tiny):
    model = GPT(tiny)
    muon, adamw = optimizers(model, CONFIG, torch.float32)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = [[names[parameter] for parameter in group["params"]] for group in (*muon.param_groups, *adamw.param_groups)]
    assert sorted(itertools.chain(*groups)) == sorted(names.values())
    assert isinstance(muon, Muon) and isinstance(adamw, torch.optim.AdamW)
    matrices = tuple(f"{kind}.weight" for kind in ("query", "key", "value", "output", "up", "down", "projection"))
    assert sorted(groups[0]) == sorted(name for name in names.values() if name.endswith(matrices))
    assert sorted(groups[1]) == ["stream.bigram.table.weight", "stream.embedding.weight"]
    assert [group["base_lr"] for group in (*muon.param_groups, *adamw.param_groups)] == [0.02, 0.03, 0.01]


def test_a_step_does_what_the_optimizers_say(tiny):
    """The second step by hand: half-way through training, clipped gradients, plain AdamW and Muon from the same state."""
    config = dataclasses.replace(CONFIG, steps=2, warmdown_fraction=1.0, gradient_clip=0.1)
    run, peer = start(tiny, config), GPT(tiny)
    steps(run, 1, config)
    peer.load_state_dict(run.model.state_dict())
    muon, adamw = optimizers(peer, config, torch.float32)
    plain = torch.optim.AdamW(adamw.param_groups, betas=(0.9, 0.95), eps=1e-8, foreach=False, fused=False)
    for optimizer, saved in zip((muon, plain), run.optimizers, strict=True):
        for group, saved_group in zip(optimizer.param_groups, saved.param_groups, strict=True):
            group["lr"] = group["base_lr"] * 0.5
            for parameter, other in zip(group["params"], saved_group["params"], strict=True):
                optimizer.state[parameter] = {key: value.clone() for key, value in saved.state[other].items()}
    muon.param_groups[0]["momentum"] = 0.85 + 0.1 * 1 / 4
    cross_entropy(peer, LOADER.batch(1), torch.float32).backward()
    norm = torch.stack([parameter.grad.square().sum() for parameter in peer.parameters()]).sum().sqrt()
    assert norm > config.gradient_clip
    for parameter in peer.parameters():
        parameter.grad *= config.gradient_clip / norm
    muon.step()
    plain.step()
    steps(run, 1, config)
    for (name, ours), theirs in zip(run.model.named_parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4, msg=name)


def test_learning_rates_warm_down_by_step_or_by_clock(tiny):
    config = dataclasses.replace(CONFIG, wall_clock_seconds=100.0)
    run = start(tiny, config)
    steps(run, 1, config)
    assert [group["lr"] for group in run.optimizers[1].param_groups] == [0.03, 0.01]
    run.seconds = 75.0
    assert run.done(config) == 0.75
    steps(run, 1, config)
    assert [group["lr"] for group in run.optimizers[1].param_groups] == [0.015, 0.005]
    assert run.optimizers[0].param_groups[0]["lr"] == 0.01
    run.seconds = 87.5
    steps(run, 1, config)
    assert [group["lr"] for group in run.optimizers[1].param_groups] == [0.0075, 0.0025]
    run.seconds = 1000.0
    assert run.done(config) == 1.0


def test_momentum_warms_up_by_step(tiny):
    run = start(tiny)
    seen = []
    for _ in range(6):
        steps(run, 1)
        seen.append(run.optimizers[0].param_groups[0]["momentum"])
    np.testing.assert_allclose(seen, [0.85, 0.875, 0.9, 0.925, 0.95, 0.95])


def test_training_learns_a_toy_text(tiny):
    config = dataclasses.replace(CONFIG, steps=60)
    losses = steps(start(tiny, config), 60, config)
    assert losses[0] == pytest.approx(np.log(64), abs=0.1)
    assert losses[-1] < 0.3


def test_the_average_follows_every_step(tiny):
    run = start(tiny)
    before = run.average.shadow["stream.embedding.weight"].clone()
    steps(run, 1)
    now = run.model.stream.embedding.weight.detach()
    torch.testing.assert_close(run.average.shadow["stream.embedding.weight"], before * 2 / 11 + now * 9 / 11)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_weights_move(tiny, value):
    run = start(tiny)
    steps(run, 1)
    before = weights(run)
    with pytest.raises(InputError, match=rf"the training loss is {value} at step 1; the last good checkpoint is kept"):
        train_step(run, LOADER.batch(1), CONFIG, lambda windows: cross_entropy(run.model, windows, torch.float32) * value)
    assert weights(run) == before and run.step == 1


def test_two_runs_give_the_same_bits(tiny):
    one, other = start(tiny), start(tiny)
    assert steps(one, 4) == steps(other, 4)
    assert weights(one) == weights(other)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tiny, tmp_path):
    path, straight, first, second = tmp_path / "deep" / "run.pt", start(tiny), start(tiny), start(tiny)
    assert resume.load(path, second) is False
    steps(straight, 6)
    steps(first, 3)
    first.seconds = 12.5
    resume.save(path, first)
    assert resume.load(path, second) is True
    assert second.seconds == 12.5
    steps(second, 3)
    assert weights(second) == weights(straight)
    assert second.history == straight.history and second.step == 6 and second.average.steps == 6
    assert [entry.name for entry in path.parent.iterdir()] == ["run.pt"]


def test_the_key_of_a_run_depends_on_every_content_and_its_place():
    keys = {resume.key(contents) for contents in ([b"a", b"b"], [b"b", b"a"], [b"ab", b""], [b"ab"], [b"a", b"b", b""])}
    assert len(keys) == 5
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)
    assert resume.key([b"a", b"b"]) == resume.key([b"a", b"b"])


def test_precision_is_what_the_params_say():
    assert precision(CONFIG, CPU) == torch.float32
    assert precision(dataclasses.replace(CONFIG, precision="bf16"), CPU) == torch.bfloat16
    assert precision(dataclasses.replace(CONFIG, precision="auto"), CPU) in (torch.bfloat16, torch.float32)


def test_without_compile_the_loss_function_is_as_it_was():
    def loss(windows):
        raise AssertionError("called")

    assert compiled(loss, CONFIG, LOADER.batch(0)) is loss
