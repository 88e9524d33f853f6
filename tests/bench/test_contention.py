"""The contention bench with a stand-in for the stages: rates are those of the stage's own clock, and the ratio decides."""

import json
import sys

import pytest

from bench import contention


@pytest.fixture
def stand_in(monkeypatch):
    """Stages that run at 1,000 tokens per second alone, at `share` of that beside a busy process."""

    def install(share: float) -> None:
        beside = []

        class Other:
            def __init__(self, command):
                beside.append(self)

            def kill(self):
                beside.remove(self)

            def wait(self):
                pass

        def run(folder, stage, setting):
            report = folder / f"reports/{stage}/timing.json"
            report.parent.mkdir(parents=True, exist_ok=True)
            report.write_text(json.dumps({contention.RATES[stage]: 1000 * (share if beside else 1)}))

        monkeypatch.setattr(contention, "clone", lambda folder: None)
        monkeypatch.setattr(contention, "run", run)
        monkeypatch.setattr(contention.subprocess, "Popen", Other)
        monkeypatch.setattr(sys, "argv", ["contention", "--times", "1"])

    return install


@pytest.mark.parametrize(("share", "slow"), [(0.7, 0), (0.25, 3)])
def test_a_stage_below_its_share_is_a_failure(stand_in, capsys, share, slow):
    stand_in(share)
    assert contention.main() == (slow > 0)
    printed = capsys.readouterr().out
    assert f"| train | default | 1,000 | {1000 * share:,.0f} | {share:.2f} |" in printed
    assert printed.endswith(f"figure contention.below_limit = {slow}\n")
