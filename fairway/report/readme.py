"""README.md of a submission folder: score by seed, significance, each step's score, bytes, certificate, settings and credits.

Everything but the author's own words comes from the runs. A credit names the pull request of the challenge from which Fairway
took a technique, and appears when the params switch that technique on.
"""

from statistics import fmean, stdev

from fairway.markdown import one_line
from fairway.report import compare
from fairway.report.compare import Group, aligned
from fairway.report.labels import ESTIMATE, SCORES

SETTINGS = """
    tokenize.tokenizer tokenize.vocabulary_size
    model.layers model.width model.heads model.kv_heads model.mlp_multiple model.activation model.recurrence
    train.steps train.wall_clock_seconds train.tokens_per_step train.sequence_length train.muon_lr train.embedding_lr
    train.weight_decay train.average prequant_ttt.source prequant_ttt.epochs prequant_ttt.lr
    quant.method quant.bits quant.allocation quant.target_bytes quant.trellis compress.coder
    eval.method eval.context ttt.optimizer ttt.parameters ttt.lr ttt.chunk_tokens ttt.epochs
    cache.tokens cache.weight ngram.mixture ngram.max_order
""".split()  # noqa: SIM905 — the most important params; params.yaml has all of them
ANY = None
# A param, the values that switch a technique on (ANY: all but 0, false and an empty list), its pull request, its name.
CREDITS = [
    ("model.activation", ["leaky_relu2"], 549, "squared leaky ReLU"),
    ("model.activation", ["star_relu"], 598, "Star-ReLU"),
    ("model.activation", ["square_glu"], 1185, "SquareGLU"),
    ("model.xsa_layers", ANY, 885, "exclusive self-attention"),
    ("model.gated_attention", ANY, 1185, "gated attention"),
    ("model.value_residual", ANY, 1185, "value residual"),
    ("model.value_embedding_layers", ANY, 549, "value embeddings"),
    ("model.unet_skips", ["plain"], 549, "U-Net skips"),
    ("model.unet_skips", ["gated"], 598, "gated U-Net skips"),
    ("model.recurrence", ["append"], 1406, "depth recurrence"),
    ("model.mod_layers", ANY, 1185, "mixture of depths"),
    ("model.bigram_buckets", ANY, 549, "hashed bigrams"),
    ("train.muon_lr", ANY, 549, "parallel Muon"),
    ("train.min_lr_fraction", ANY, 1787, "a floor under the learning rate"),
    ("train.grokfast_weight", ANY, 1185, "Grokfast"),
    ("train.mtp_heads", ANY, 1185, "multi-token prediction"),
    ("train.distill_weight", ANY, 1185, "distillation from averaged weights"),
    ("qat.entropy_weight", ANY, 885, "entropy-regularized rounding"),
    ("qat.crown_weight", ANY, 690, "CROWN-Q"),
    ("qat.prune_fraction", ANY, 861, "pruning while training"),
    ("prequant_ttt.source", ["holdout", "train", "val"], 1406, "training before quantization"),
    ("quant.method", ["gptq"], 1406, "GPTQ with full Hessians"),
    ("quant.method", ["gptq_lite"], 885, "searched clips"),
    ("quant.clip_rule", ["deviation"], 1394, "clips by standard deviation"),
    ("quant.rotation", ["hadamard"], 1400, "Hadamard rotation"),
    ("quant.prune_fraction", ANY, 861, "pruning before quantization"),
    ("quant.calibration", ["generated"], 1019, "calibration on text of its own"),
    ("compress.coder", ["brotli"], 1394, "brotli"),
    ("ttt.optimizer", ["adamw", "sgd", "muon"], 549, "score-first test-time training"),
    ("ttt.optimizer", ["adamw"], 861, "test-time training by AdamW"),
    ("ttt.optimizer", ["muon"], 999, "test-time training by orthogonalised gradients"),
    ("ttt.parameters", ["lora"], 1530, "test-time training of adapters"),
    ("ngram.mixture", ["fixed"], 885, "n-gram mixture of a fixed weight"),
    ("ngram.mixture", ["entropy"], 1185, "n-gram mixture by entropy"),
    ("ngram.mixture", ["tilt"], 1514, "renormalized tilt"),
]


def readme(entry: dict, runs: Group, baseline: Group, sizes: dict[str, int], certificate: dict) -> str:
    """The page. `entry` is submission.json, `runs` the seeds, the packed one first, `sizes` the metrics of compress."""
    blocks = [
        f"# {entry['name']}",
        f"**val_bpb {entry['val_bpb']:.4f}**{'' if entry['proved'] else ESTIMATE}, {entry['val_loss']:.4f} nats per token, "
        f"{entry['bytes_total']:,} bytes.",
        entry["blurb"],
        "## Score by seed",
        aligned(["seed", "val_bpb", "nats per token", "bytes", "verdict"], seed_rows(runs)),
        f"`submission.pyz` is the run of seed {runs[0].seed}; nats per token = {runs[0].nats_per_bit:.4f} × bits per byte.",
    ]
    if baseline:
        blocks += [f"## Against {baseline[0].name}", *compare.tests([baseline, runs])]
    blocks += [
        "## From the float weights to the mixture",
        aligned(["step", "bpb"], steps(runs)),
        "## Bytes",
        aligned(["part of submission.pyz", "bytes"], byte_rows(sizes)),
        "## Certificate",
        claims(certificate),
        "## Settings",
        aligned(["param", "value"], [[key, compare.as_written(runs[0].params.get(key))] for key in SETTINGS]),
        "## Credits",
        "\n".join(f"- #{number}: {', '.join(names)}" for number, names in credits(runs[0].params).items()),
        "## Files",
        "`submission.pyz` is everything that a decoder needs (`python submission.pyz info`); `source/` is its code as it was "
        "written; `logs/` has the training loss of each seed; `params.yaml` makes the run again in Fairway with `dvc repro`; "
        "`certificate.md` says what was proved and how to repeat it.\n",
    ]
    return "\n\n".join(blocks)


def seed_rows(runs: Group) -> list[list[str]]:
    """One row per seed; of several seeds also their mean and standard deviation."""
    scores, unit = compare.scores(runs), runs[0].nats_per_bit
    rows = [
        [str(run.seed), f"{score:.5f}", f"{score * unit:.5f}", f"{run.metrics['artifact_bytes']:,}", run.verdict]
        for run, score in zip(runs, scores, strict=True)
    ]
    if len(runs) > 1:
        for name, value in (("mean", fmean(scores)), ("deviation", stdev(scores))):
            rows.append([name, f"{value:.5f}", f"{value * unit:.5f}", "", ""])
    return rows


def steps(runs: Group) -> list[list[str]]:
    """Each score of the pipeline, as the mean over the seeds."""
    measured = [score for score in SCORES if score.metric in runs[0].metrics]
    return [[score.name, f"{fmean(run.metrics[score.metric] for run in runs):.4f}"] for score in measured]


def byte_rows(sizes: dict[str, int]) -> list[list[str]]:
    parts = {name: sizes[f"{name}_bytes"] for name in ("code", "tokenizer", "weights")}
    whole = {"total": sizes["artifact_bytes"], "left of the budget": sizes["headroom_bytes"]}
    rest = {"zip directory": whole["total"] - sum(parts.values())}
    return [[name, f"{size:,}"] for name, size in (parts | rest | whole).items() if size]


def claims(certificate: dict) -> str:
    lines = [f"- {'holds' if c['passed'] else '**FAILS**'}: {c['claim']}: {c['result']}" for c in certificate["claims"]]
    return "\n".join([f"**{one_line(certificate['verdict']).capitalize()}**\n", *map(one_line, lines)])


def credits(params: dict) -> dict[int, list[str]]:
    """Techniques that the params switch on, by pull request, the oldest first."""
    found: dict[int, list[str]] = {}
    for key, values, number, name in sorted(CREDITS, key=lambda row: row[2]):
        value = params.get(key)
        if value in values if values else value:
            found.setdefault(number, []).append(name)
    return found
