"""The training loop: to the end, in parts, and what it asks of its hooks."""

import pytest
import torch

from fairway.train import fit
from fairway.train.fit import Hooks
from fairway.train.ranks import SINGLE_PROCESS


def fitted(run, loader, **hooks) -> bool:
    return fit.fit(run, loader, fit.loss_functions(run, loader, SINGLE_PROCESS), Hooks(**hooks), SINGLE_PROCESS)


def assert_equal(run, other) -> None:
    """The same exported weights to the bit, and the same curve."""
    torch.testing.assert_close(run.exported(), other.exported(), atol=0, rtol=0)
    assert run.history == other.history


def test_it_steps_to_the_end_and_says_each_loss(begin, advance, loader):
    run, peer, said = begin(), begin(), []
    losses = advance(peer, 10)
    peer.history = [{"step": step, "loss": round(loss, 5)} for step, loss in enumerate(losses, start=1)]
    assert fitted(run, loader, progress=lambda tokens, note: said.append((tokens, note)))
    assert said == [(64, f"loss {loss:.3f}") for loss in losses]
    assert_equal(run, peer)


def test_interrupted_it_saves_and_goes_on_where_it_was(begin, loader, monkeypatch):
    monkeypatch.setattr(fit, "CURVE_POINTS", 4)  # two steps per point: a stop between them loses no loss
    run, straight, saved = begin(), begin(), []
    assert fitted(straight, loader)
    assert [point["step"] for point in straight.history] == [2, 4, 6, 8, 10]
    for step in (3, 10):
        assert not fitted(run, loader, save=lambda: saved.append(run.step), interrupted=lambda step=step: run.step == step)
        assert saved[-1] == run.step == step
    assert fitted(run, loader, save=lambda: saved.append(run.step)) and saved == [3, 10]
    assert_equal(run, straight)


def test_it_saves_when_due_and_reports_every_new_point(begin, loader, monkeypatch):
    monkeypatch.setattr(fit, "REPORT_SECONDS", 0.0)
    saved, reported = [], []
    run = begin(checkpoint_seconds=1e-9)
    assert fitted(run, loader, save=lambda: saved.append(run.step), report=lambda: reported.append(len(run.history)))
    assert saved == reported == list(range(1, 11))


def test_metrics_count_what_was_trained_on(begin, loader):
    run = begin(average="none")
    fitted(run, loader)
    found = fit.metrics(run, loader, SINGLE_PROCESS)
    assert found["train_tokens"] == 640 and found["train_loss"] == run.history[-1]["loss"]
    assert found["epochs"] == round(40 / loader.windows, 3)
    assert found["parameters"] == sum(tensor.numel() for tensor in run.exported().values())
    assert (found["world_size"], found["precision"], found["device"]) == (1, "float32", "cpu")
    assert fit.timing(run, 1.25)["tokens_per_second"] == round(640 / run.seconds, 1)


@pytest.mark.parametrize("compiles", [False, True])
def test_bytes_repeat_and_memory_that_nothing_reads_is_not_filled(compiles):
    try:
        fit.deterministic(compiles)
        assert torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
    finally:
        torch.use_deterministic_algorithms(False)


def test_compiled_gradients_of_tables_repeat_on_two_threads():
    """torch's own way adds them up atomically: the same step gives other last bits, and no run repeats itself."""
    threads, table = torch.get_num_threads(), torch.nn.Parameter(torch.randn(16, 256))
    rows = torch.randint(16, (64, 256))
    weights = torch.randn(64, 256, 256)
    try:
        torch.set_num_threads(2)
        fit.deterministic(compiles=True)
        loss = torch.compile(lambda: (torch.nn.functional.embedding(rows, table) * weights).sum())
        gradients = {torch.autograd.grad(loss(), table)[0].numpy().tobytes() for _ in range(20)}
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    assert len(gradients) == 1
