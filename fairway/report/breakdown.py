"""The report's tables of the run itself: bytes by layer, seconds by stage, params that differ. tables.py has those of a score.

A layer is a block of the network; what belongs to none (embeddings, the head, the container's header) stands under its own
name. Seconds are measurements: they differ from run to run.
"""

import json
import math

import pandas as pd

from fairway.lm.parameters import module_of


def by_layer(roles: pd.DataFrame) -> pd.DataFrame:
    """layer, weights, bytes, and the bytes of each role; in the order of the network, all layers add up to the weights.

    `roles` is the table of the stage compress: role, name, weights, bytes; one row per tensor.
    """
    keyed = roles.assign(layer=roles["name"].map(module_of))
    by_role = keyed.pivot_table(index="layer", columns="role", values="bytes", aggfunc="sum", fill_value=0)
    totals = keyed.groupby("layer")[["weights", "bytes"]].sum()
    frame = totals.join(by_role[list(dict.fromkeys(roles["role"]))])
    return frame.loc[sorted(frame.index, key=_depth)].reset_index()


def _depth(layer: str) -> tuple:
    """Embeddings and what else feeds the stack, the blocks, the head, the header."""
    is_block = layer.startswith("block ")
    return {"lm_head": 2, "header": 3}.get(layer, int(is_block)), int(layer.split()[1]) if is_block else 0, layer


def seconds(timing: dict[str, dict]) -> pd.DataFrame:
    """stage, seconds, share, rate (tokens/s, NaN where the stage counts none), parts: how the stage itself splits its time.

    `timing` are the stages' timing.json. Parts may overlap: the start of a process is also a part of what it does.
    """
    whole = sum(clock["seconds"] for clock in timing.values())
    rows = []
    for stage, clock in timing.items():
        parts = [
            f"{key.removesuffix('_seconds').replace('_', ' ')} {value:,.1f} s"
            for key, value in clock.items()
            if key.endswith("_seconds") and value is not None  # of a text that could not be coded
        ]
        rate = clock.get("tokens_per_second") or clock.get("decode_tokens_per_second") or math.nan
        rows.append((stage, clock["seconds"], clock["seconds"] / whole, rate, ", ".join(parts)))
    return pd.DataFrame(rows, columns=["stage", "seconds", "share", "rate", "parts"])


def changed(params: dict, default: dict) -> pd.DataFrame:
    """key, default, value (as in YAML): where two params files, read, differ; what one of them lacks is "—" there."""
    ours, theirs = _flat(params), _flat(default)
    rows = [(key, theirs.get(key, "—"), ours.get(key, "—")) for key in ours | theirs]
    return pd.DataFrame([row for row in rows if row[1] != row[2]], columns=["key", "default", "value"])


def _flat(sections: dict) -> dict[str, str]:
    return {
        f"{section}.{key}": json.dumps(value, ensure_ascii=False)
        for section, values in sections.items()
        for key, value in (values or {}).items()
    }
