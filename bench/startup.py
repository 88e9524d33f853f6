"""How long a command takes before it works: the imports of each stage, beside those of the libraries that it needs, and a
`dvc repro` that has nothing to do.

Each is a process of its own, the fastest of a few: what is measured is the program, not the neighbours. The limits are 2.5 s
for a stage that needs torch, 0.5 s for one that does not, 3 s for the repro. Run after `dvc repro`: python -m bench.startup
"""

import argparse
import subprocess
import sys
import time

from fairway.params import read_yaml

LIMITS = {"torch": 2.5, "": 0.5}  # seconds
REPRO_LIMIT = 3.0
HEAVY = ("torch", "numba", "pandas")  # what takes long to import
NEEDS = f"import sys, stages.{{}}; print(*(name for name in {HEAVY} if name in sys.modules))"


def seconds(command: list[str], times: int) -> float:
    """Of the fastest of so many runs. Raises CalledProcessError when one fails."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.startup")
    parser.add_argument("--times", type=int, default=5, help="runs of each, of which the fastest counts")
    times = parser.parse_args().times
    stages = list(read_yaml("dvc.yaml")["stages"])
    print("| stage | imports, s | limit, s | heavy libraries | these alone, s | ratio |\n|---|---:|---:|---|---:|---:|")
    slow = 0
    for stage in stages:
        shown = subprocess.run([sys.executable, "-c", NEEDS.format(stage)], check=True, capture_output=True, text=True).stdout
        libraries = ["numpy", *shown.split()]
        found = seconds([sys.executable, "-c", f"import stages.{stage}"], times)
        peer = seconds([sys.executable, "-c", f"import {', '.join(libraries)}"], times)
        limit = LIMITS["torch" if "torch" in libraries else ""]
        slow += found > limit
        print(f"| {stage} | {found:.2f} | {limit} | {', '.join(libraries)} | {peer:.2f} | {found / peer:.2f} |", flush=True)
    status = subprocess.run(["dvc", "status", "-q"], check=False, capture_output=True).returncode
    if status:
        sys.exit("error: the pipeline is not up to date, so `dvc repro` has something to do; run it first")
    found, peer = seconds(["dvc", "repro"], times), seconds(["dvc", "--version"], times)
    slow += found > REPRO_LIMIT
    print(f"| `dvc repro`, nothing to do | {found:.2f} | {REPRO_LIMIT} | `dvc --version` | {peer:.2f} | {found / peer:.2f} |\n")
    print(f"figure startup.over_limit = {slow}")
    return int(slow > 0)


if __name__ == "__main__":
    sys.exit(main())
