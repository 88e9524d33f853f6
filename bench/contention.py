"""How much a stage slows down beside another busy process: OpenMP threads that spin for each other make a busy machine crawl.

A clone of the pipeline at the default sizes runs once on a part of the text; then `train`, `eval_ttt` and `certify` run
alone and beside one process that does nothing but count, and their own clocks (timing.json) are compared. On 2 cores a fair
share beside one busy process is about 0.67 of the quiet rate, the limit 0.6. `--setting NAME=VALUE` tries environment
variables (repeat for several); without one the stages' own default applies. Needs a quiet machine; about 10 minutes.
Run: python -m bench.contention [--times 2] [--setting GOMP_SPINCOUNT=1000 --setting OMP_WAIT_POLICY=ACTIVE]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairway.yaml_edit import edited

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("fairway", "stages", "params.yaml", "dvc.yaml", "data")
SHORT = {
    "tokenize": {"val_fraction": 0.01},
    "train": {"steps": 60},
    "certify": {"tokens": 1500, "causality_tokens": 100, "causality_checks": 1},
}
RATES = {"train": "tokens_per_second", "eval_ttt": "tokens_per_second", "certify": "decode_tokens_per_second"}
EARLIER = ("tokenize", "train", "prequant_ttt", "quant", "compress", "eval_sliding", "eval_ttt", "eval_ngram")
LIMIT = 0.6  # of the quiet rate
BUSY = [sys.executable, "-c", "while True: pass"]


def clone(folder: Path) -> None:
    """A copy of the pipeline with SHORT params, up to date but for certify."""
    for name in COPIED:
        source, ignore = ROOT / name, shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / name, ignore=ignore) if source.is_dir() else shutil.copy(source, folder / name)
    path = folder / "params.yaml"
    path.write_bytes(edited(path.read_bytes(), SHORT, str(path)))
    for stage in EARLIER:
        run(folder, stage, {})


def run(folder: Path, stage: str, setting: dict[str, str]) -> None:
    environment = os.environ | {"PYTHONPATH": str(folder)} | setting
    command = [sys.executable, "-m", f"stages.{stage}"]
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def busy(processes: int) -> Iterator[None]:
    others = [subprocess.Popen(BUSY) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def rate(folder: Path, stage: str, setting: dict[str, str], others: int, times: int) -> float:
    """Tokens per second, the best of so many runs, beside so many busy processes."""
    found = []
    for _ in range(times):
        with busy(others):
            run(folder, stage, setting)
        found.append(json.loads((folder / f"reports/{stage}/timing.json").read_text())[RATES[stage]])
    return max(found)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.contention")
    parser.add_argument("--times", type=int, default=2, help="runs of each, of which the fastest counts")
    parser.add_argument(
        "--setting", action="append", default=[], help="NAME=VALUE[,NAME=VALUE] in the environment of the stages"
    )
    parser.add_argument("--stages", nargs="+", choices=RATES, default=list(RATES))
    options = parser.parse_args()
    settings = {text: dict(pair.split("=", 1) for pair in text.split(",")) for text in options.setting} or {"default": {}}
    slow = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        clone(folder)
        print("| stage | setting | alone, tokens/s | beside one busy process | ratio |\n|---|---|---:|---:|---:|")
        for stage in options.stages:
            for name, setting in settings.items():
                alone, beside = (rate(folder, stage, setting, others, options.times) for others in (0, 1))
                slow += beside < LIMIT * alone
                print(f"| {stage} | {name} | {alone:,.0f} | {beside:,.0f} | {beside / alone:.2f} |", flush=True)
                print(f"figure contention.{stage}.{name} = {beside / alone:.3f}", file=sys.stderr)
    print(f"\nfigure contention.below_limit = {slow}")
    return int(slow > 0)


if __name__ == "__main__":
    sys.exit(main())
