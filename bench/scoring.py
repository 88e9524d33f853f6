"""Streaming against sliding windows: tokens per second and bits per byte of the same network on the same text, in one run.

Windows of the training length at ratio 32, as published: stride 8 where published ones have 64 of 2,048. Ours run the
head for fresh tokens only. The naive peer is a window loop as in the published scripts: every window from scratch, logits
and cross entropy of all its positions, of which the last `stride` are kept, one window of the batch after the other.
The three take turns, and of each stretch of text that one scores at a time its best round counts: on a shared machine a
long run finds no quiet hour. Then what block and batch do to the speed of streaming.
Run after `dvc repro`: python -m bench.scoring
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from fairway.lm.model import GPT
from fairway.score.bits import bits_per_byte
from fairway.score.config import Eval
from fairway.score.streaming import score_stream
from fairway.score.windows import score_windows
from stages.common import keep_freed_memory
from stages.validation import decoded_model, read_validation

RATIO, BATCH = 32, 32  # tokens a window over those that it scores; windows at once
BLOCKS = (1, 16, 64, 256, 1024, 4096)
SIDE_BY_SIDE = ((512, 1), (512, 4))  # tokens a segment, segments at once; the block is what a segment has

Advance = Callable[[int], None]
Scorer = Callable[[Advance], np.ndarray]  # tells how many targets it has scored, from time to time; their nats


class Text(NamedTuple):
    tokens: np.ndarray  # uint16
    bytes: int  # that all but the first spell

    @property
    def targets(self) -> int:
        return len(self.tokens) - 1


@torch.no_grad()
def naive_windows(
    model: GPT, tokens: np.ndarray, context: int, stride: int, advance: Advance = lambda count: None
) -> np.ndarray:
    """Nats of the targets; the text ends with a window."""
    device, targets = next(model.parameters()).device, torch.from_numpy(tokens.astype(np.int64))
    starts, nats = range(0, len(tokens) - context, stride), []
    for index in range(0, len(starts), BATCH):
        batch = starts[index : index + BATCH]
        inputs_BT = torch.stack([targets[start : start + context] for start in batch]).to(device)
        targets_BT = torch.stack([targets[start + 1 : start + context + 1] for start in batch]).to(device)
        logits_BTV = model(inputs_BT)
        losses_BT = F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="none").view(targets_BT.shape)
        for start, losses_T in zip(batch, losses_BT, strict=True):
            nats.append(losses_T[0 if start == 0 else context - stride :].cpu().numpy())
        advance(len(batch) * stride)
    return np.concatenate(nats)


def race(ways: dict[str, Scorer], rounds: int) -> dict[str, tuple[float, np.ndarray]]:
    """Seconds and nats of each. They take turns for several rounds; a stretch between two advances counts with its best."""
    nats, laps = {}, {name: [] for name in ways}
    for _ in range(rounds):
        for name, score in ways.items():
            times = [time.perf_counter()]
            nats[name] = score(lambda count, times=times: times.append(time.perf_counter()))
            laps[name].append(np.diff([*times, time.perf_counter()]))
    return {name: (float(np.min(laps[name], axis=0).sum()), nats[name]) for name in ways}


def streaming(model: GPT, text: Text, config: Eval) -> Scorer:
    return lambda advance: score_stream(model, text.tokens, config, advance=advance)["nats"]


def compare(model: GPT, text: Text, config: Eval, rounds: int) -> list[str]:
    """Prints the race of the three; its figures as lines."""
    shape = config.context, config.stride
    ways = {
        "streaming": streaming(model, text, config),
        "windows": lambda advance: score_windows(model, text.tokens, *shape, BATCH, advance=advance)["nats"],
        "naive windows": lambda advance: naive_windows(model, text.tokens, *shape, advance),
    }
    best = race(ways, rounds)
    bpb = {name: bits_per_byte(nats, text.bytes) for name, (_, nats) in best.items()}
    device = f"CPU threads {torch.get_num_threads()}" if next(model.parameters()).is_cpu else torch.cuda.get_device_name()
    print(f"\n## {text.targets:,} tokens, context {config.context}, stride {config.stride}, {device}, {rounds} rounds\n")
    print("| scorer | tokens/s | speed of streaming over it | bpb |\n|---|---:|---:|---:|")
    fastest, _ = best["streaming"]
    for name, (seconds, _) in best.items():
        print(f"| {name} | {text.targets / seconds:,.0f} | {seconds / fastest:.1f} | {bpb[name]:.4f} |")
    return [
        f"figure streaming_tokens_per_second = {text.targets / fastest:.0f}",
        f"figure streaming_to_windows = {best['windows'][0] / fastest:.1f}",
        f"figure streaming_to_naive_windows = {best['naive windows'][0] / fastest:.1f}",
        f"figure streaming_bpb_minus_windows = {bpb['streaming'] - bpb['windows']:+.4f}",
    ]


def knobs(model: GPT, text: Text, config: Eval, rounds: int) -> None:
    """Prints the speed of streaming by block, and by segments side by side; the nats of all blocks must agree."""
    settings = {f"block {block:,}": dataclasses.replace(config, block=block) for block in BLOCKS}
    for tokens, batch in SIDE_BY_SIDE:
        side_by_side = {"block": tokens, "segment_tokens": tokens, "batch": batch}
        settings[f"segments of {tokens:,}, {batch} at once"] = dataclasses.replace(config, **side_by_side)
    best = race({name: streaming(model, text, setting) for name, setting in settings.items()}, rounds)
    _, single = best["block 1"]
    print(f"\n## What changes the speed only, {text.targets:,} tokens; a segment re-reads {config.context} tokens\n")
    print("| streaming | tokens/s | bpb | largest difference to block 1, nats |\n|---|---:|---:|---:|")
    for name, (seconds, nats) in best.items():
        difference = f"{np.abs(nats - single).max():.1e}" if name.startswith("block") else ""
        print(f"| {name} | {text.targets / seconds:,.0f} | {bits_per_byte(nats, text.bytes):.4f} | {difference} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Streaming against sliding windows.")
    parser.add_argument("--tokens", type=int, default=8192, help="of the validation stream, for all scorers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="1 where others use the machine")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    model = decoded_model()
    context = model.architecture.sequence_length
    validation = read_validation(context)

    def text(count: int) -> Text:
        """So many targets at most that the last window ends with the text."""
        stride = context // RATIO
        tokens = np.asarray(
            validation.tokens[: (min(count, len(validation.tokens) - 1) - context) // stride * stride + context + 1]
        )
        return Text(tokens, int(validation.token_bytes[tokens[1:]].sum()))

    config = Eval(context=context, stride=context // RATIO)
    figures = compare(model, text(arguments.tokens), config, arguments.rounds)
    knobs(model, text(arguments.tokens // 4), config, arguments.rounds)
    print("\n" + "\n".join(figures))


if __name__ == "__main__":
    main()
