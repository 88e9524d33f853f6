"""What a step minimises: each term against a plain version, and late starters that start when they should."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from fairway.lm.model import GPT
from fairway.train import objective as module
from fairway.train.objective import Phase, compiled, cross_entropy, distillation
from fairway.train.qat import crown_penalty, entropy_penalty


def logits(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradients(run) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in run.objective.named_parameters() if parameter.grad is not None}


def test_cross_entropy_is_the_mean_surprise_of_the_targets(begin, loader):
    objective, windows = begin(moved=True).objective, loader.batch(0)
    probabilities = torch.softmax(objective.model(windows[:, :-1]), -1)
    surprises = [-probabilities[b, t, windows[b, t + 1]].log() for b in range(4) for t in range(16)]
    loss, entropy = objective(windows)
    torch.testing.assert_close(loss, torch.stack(surprises).mean())
    assert torch.equal(entropy, loss) and not entropy.requires_grad


def test_matrix_products_in_bf16_are_near_and_not_the_same(begin, loader):
    objective = begin(moved=True).objective
    exact, rounded = (
        objective.loss(Phase(True, False), dtype, None)(loader.batch(0))[1].item() for dtype in (torch.float32, torch.bfloat16)
    )
    assert exact != rounded and abs(exact - rounded) < 0.05


def test_routers_add_the_loss_that_keeps_them_at_their_capacity(begin, tiny, loader):
    objective, windows = begin(dataclasses.replace(tiny, mod_layers=[0, 2]), moved=True).objective, loader.batch(0)
    routing: list[torch.Tensor] = []
    objective.model.hidden(windows[:, :-1], losses=routing)
    loss, entropy = objective(windows)
    assert len(routing) == 2 and min(routing) > 0
    torch.testing.assert_close(loss, entropy + routing[0] + routing[1])


def test_each_further_head_looks_one_token_further(begin, loader):
    """Two, three and four tokens ahead, where the window holds them; logits capped as the network's own are."""
    objective, windows = begin(moved=True, mtp_heads=3, mtp_weight=0.3).objective, loader.batch(0)
    with torch.no_grad():
        for seed, head in enumerate(objective.heads):
            head.copy_(0.1 * logits(*head.shape, seed=seed))
    hidden = objective.model.hidden(windows[:, :-1])
    surprise = {1: [], 2: [], 3: []}
    for b in range(4):
        for t in range(16):
            for further, losses in surprise.items():
                if t + 1 + further <= 16:
                    scores = 10 * torch.tanh(objective.heads[further - 1] @ hidden[b, t] / 10)
                    losses.append(-scores.log_softmax(0)[windows[b, t + 1 + further]])
    assert [len(losses) for losses in surprise.values()] == [60, 56, 52]
    loss, entropy = objective(windows)
    torch.testing.assert_close(loss - entropy, 0.3 * sum(torch.stack(losses).mean() for losses in surprise.values()) / 3)


def test_further_heads_learn_and_teach_the_network(begin, advance, loader, gradients_of):
    """They start at zero, move at once (the published ones were in no optimizer), then change the network's gradient."""
    run, plain = begin(moved=True, mtp_heads=2), begin(moved=True)
    before = gradients_of(run.objective, loader.batch(0))
    table = "model.stream.embedding.weight"
    assert all(before[f"heads.{head}"].abs().max() > 0 for head in range(2))
    torch.testing.assert_close(before[table], gradients_of(plain.objective, loader.batch(0))[table])
    advance(run, 3)
    assert all(head.abs().max() > 0.01 for head in run.objective.heads)
    plain.objective.model.load_state_dict(run.objective.model.state_dict())
    with_heads, without = (gradients_of(one.objective, loader.batch(3))[table] for one in (run, plain))
    assert (with_heads - without).norm() > 0.01 * without.norm()
    assert list(run.exported()) == [name for name, _ in run.objective.model.named_parameters()]


def test_further_heads_learn_what_lies_ahead(begin, advance, loader):
    """The toy text repeats: after training a head knows the token after the next better than chance."""
    run = begin(mtp_heads=1, mtp_weight=1.0, steps=40)
    advance(run, 40)
    loss, entropy = run.objective(loader.batch(40))
    assert (loss - entropy).item() < 0.5 * math.log(64)


@pytest.mark.parametrize("temperature", [1.0, 1.6])
def test_distillation_is_the_divergence_of_each_token(temperature):
    student, teacher = logits(2, 3, 5), logits(2, 3, 5, seed=1)
    divergences = []
    for b in range(2):
        for t in range(3):
            p, q = ((one[b, t] / temperature).softmax(0) for one in (teacher, student))
            divergences.append((p * (p / q).log()).sum().item())
    assert distillation(student, teacher, temperature).item() == pytest.approx(temperature**2 * sum(divergences) / 6)
    perfect = torch.nn.KLDivLoss(reduction="batchmean")(
        (student / temperature).log_softmax(-1).flatten(0, 1), (teacher / temperature).softmax(-1).flatten(0, 1)
    )
    torch.testing.assert_close(distillation(student, teacher, temperature), temperature**2 * perfect)


def test_distillation_is_a_mean_over_tokens():
    student, teacher = logits(2, 3, 5), logits(2, 3, 5, seed=1)
    one = distillation(student, teacher, 1.6)
    for repeats in ((4, 1, 1), (1, 7, 1)):
        torch.testing.assert_close(distillation(student.repeat(repeats), teacher.repeat(repeats), 1.6), one)
    assert distillation(student, student, 1.6).item() == pytest.approx(0, abs=1e-12)


def test_distillation_gradient_by_finite_differences():
    student, teacher = logits(2, 3, 5).requires_grad_(), logits(2, 3, 5, seed=1)
    assert torch.autograd.gradcheck(lambda student: distillation(student, teacher, 1.6), student)


def test_the_teacher_adds_its_divergence_and_is_not_taught(begin, tiny, shaken, loader):
    run = begin(moved=True, distill_weight=0.7, distill_temperature=1.6)
    windows, teacher = loader.batch(0), shaken(tiny, seed=5)
    run.teacher.load_state_dict(teacher.state_dict())
    loss, entropy = run.objective.loss(Phase(True, True), torch.float32, run.teacher)(windows)
    expected = distillation(run.objective.model(windows[:, :-1]), teacher(windows[:, :-1]), 1.6)
    assert expected > 0.1
    torch.testing.assert_close(loss, entropy + 0.7 * expected)
    loss.backward()
    assert all(parameter.grad is None for parameter in run.teacher.parameters())
    undistilled = run.objective.loss(Phase(True, False), torch.float32, run.teacher)(windows)
    assert torch.equal(undistilled[0], undistilled[1])


def test_the_teacher_is_the_average_when_distillation_begins_and_every_few_steps_of_it(begin, advance):
    """Rates fall from 1 over ten steps, so a start at 0.6 is at step 4; every third step from there."""
    run = begin(distill_weight=0.5, distill_start=0.6, distill_every=3, warmdown_fraction=1.0)
    teachers, averages, distilled = [], [], []
    for _ in range(10):
        averages.append(run.average.shadow["stream.embedding.weight"].clone())
        advance(run, 1, watch=lambda run, phase: distilled.append(phase.distilled))
        teachers.append(run.teacher.stream.embedding.weight.clone())
    assert distilled == [False] * 4 + [True] * 6
    for step in range(10):
        refreshed = averages[0] if step < 4 else averages[4 + (step - 4) // 3 * 3]
        assert torch.equal(teachers[step], refreshed), step
    assert not torch.equal(averages[4], averages[7])


def test_recurrence_starts_late_in_the_network_and_in_its_teacher(begin, advance):
    """Layer 1 runs once a pass, then, from step 4 of 10 on, twice; the teacher is there from step 2 on."""
    run = begin(recurrence_start=0.4, distill_weight=0.5, distill_start=0.8, warmdown_fraction=1.0)
    counts = {"network": 0, "teacher": 0}
    for name, network in (("network", run.objective.model), ("teacher", run.teacher)):
        network.blocks[1].register_forward_hook(lambda *_, name=name: counts.update({name: counts[name] + 1}))
    assert run.phases() == [Phase(False, False), Phase(False, True), Phase(True, True)]
    seen, phases = [], []
    for _ in range(6):
        counts.update(network=0, teacher=0)
        advance(run, 1, watch=lambda run, phase: phases.append(phase))
        seen.append((counts["network"], counts["teacher"]))
    assert seen == [(1, 0)] * 2 + [(1, 1)] * 2 + [(2, 2)] * 2
    assert phases == [Phase(False, False)] * 2 + [Phase(False, True)] * 2 + [Phase(True, True)] * 2
    assert run.phases() == [Phase(True, True)]


@pytest.mark.usefixtures("all_on_grids")
def test_penalty_is_the_weighted_sum_of_both(begin):
    weights = {"entropy_weight": 0.3, "crown_weight": 7.0}
    objective = begin(moved=True, qat=weights).objective
    parts = [
        function(objective.grid_parameters(), objective.roles, objective.qat) for function in (entropy_penalty, crown_penalty)
    ]
    torch.testing.assert_close(objective.penalty(), 0.3 * parts[0] + 7.0 * parts[1])
    for name, part in zip(weights, parts, strict=True):
        torch.testing.assert_close(begin(moved=True, qat={name: 2.0}).objective.penalty(), 2.0 * part)


@pytest.mark.usefixtures("all_on_grids")
def test_penalties_join_the_gradient_late_once_a_step(begin, advance, loader, gradients_of, still):
    """From multiplier 0.5 on, step 5 of 10; two passes a step count it once, and the loss shown is without it."""
    qat = {"entropy_weight": 0.1, "crown_weight": 1.0, "penalty_start": 0.5}
    run = begin(moved=True, qat=qat, gradient_clip=0.0, warmdown_fraction=1.0, tokens_per_pass=32, **still)
    plain = begin(moved=True)
    run.objective.penalty().backward()
    pull = gradients(run)
    assert set(pull) == set(run.objective.roles) and all(gradient.abs().max() > 0 for gradient in pull.values())
    for step in range(10):
        losses = advance(run, 1)
        expected = gradients_of(plain.objective, loader.batch(step))
        assert losses == [pytest.approx(plain.objective(loader.batch(step))[1].item(), rel=1e-5)]
        for name, gradient in gradients(run).items():
            total = expected[name] + (pull[name] if step >= 5 and name in pull else 0)
            torch.testing.assert_close(gradient, total, atol=1e-5, rtol=1e-4, msg=f"{name} at step {step}")


def test_a_network_too_small_for_any_grid_trains_as_it_is(begin, advance):
    """Rounding, penalties and pruning act on matrices that quant rounds; the tiny network has none."""
    run = begin(qat={"start": 1.0, "entropy_weight": 1.0, "penalty_start": 1.0, "prune_fraction": 0.5, "prune_start": 0.0})
    assert advance(run, 4) == advance(begin(), 4)


def test_without_a_compiler_the_loss_function_stays_as_it_is(monkeypatch, loader, begin):
    from torch._inductor.exc import InductorError

    def no_compiler(function):
        def fails(windows):
            raise InductorError(RuntimeError("no C++ compiler"), None)

        return fails

    loss = begin().objective.loss(Phase(True, False), torch.float32, None)
    monkeypatch.setattr(module.torch, "compile", no_compiler)
    assert compiled(loss, loader.batch(0)) is loss
    monkeypatch.setattr(module.torch, "compile", lambda function: lambda windows: function(windows))
    assert compiled(loss, loader.batch(0)) is not loss


def test_cross_entropy_of_certain_and_of_uniform_logits():
    targets = torch.tensor([[1, 2]])
    assert cross_entropy(100.0 * F.one_hot(targets, 4), targets).item() == pytest.approx(0, abs=1e-6)
    assert cross_entropy(torch.zeros(1, 2, 4), targets).item() == pytest.approx(math.log(4))


def test_objective_holds_the_network_and_its_heads_only(begin, tiny):
    run = begin(mtp_heads=2, distill_weight=1.0)
    assert isinstance(run.teacher, GPT)
    names = [name for name, _ in run.objective.named_parameters() if not name.startswith("model.")]
    assert names == ["heads.0", "heads.1"]
    assert [tuple(head.shape) for head in run.objective.heads] == [(tiny.vocabulary_size, tiny.width)] * 2
