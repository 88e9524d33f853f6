import math

import pandas as pd

from fairway.report import breakdown

ROLES = pd.DataFrame(
    [
        ("fp16", "blocks.0.scale", 4, 14),
        ("attention", "blocks.10.attention.key.weight", 100, 50),
        ("attention", "blocks.2.attention.key.weight", 100, 60),
        ("embedding", "stream.embedding.weight", 200, 90),
        ("embedding", "stream.bigram.table.weight", 20, 9),
        ("projection", "stream.bigram.projection.weight", 10, 8),
        ("embedding", "unembedding.weight", 200, 95),
        ("container", "header", 0, 7),
    ],
    columns=["role", "name", "weights", "bytes"],
)


def test_layers_add_up_and_stand_in_the_order_of_the_network():
    frame = breakdown.by_layer(ROLES)
    assert frame["layer"].tolist() == ["bigram", "embedding", "block 0", "block 2", "block 10", "lm_head", "header"]
    assert frame["bytes"].sum() == ROLES["bytes"].sum() and frame["weights"].sum() == ROLES["weights"].sum()
    roles = ["fp16", "attention", "embedding", "projection", "container"]
    assert frame[roles].sum(axis=1).tolist() == frame["bytes"].tolist()
    assert frame.set_index("layer").loc["bigram", ["embedding", "projection"]].tolist() == [9, 8]


def test_seconds_say_what_a_stages_time_went_to():
    timing = {
        "train": {"seconds": 30.0, "compile_seconds": 10.25, "tokens_per_second": 1300.0},
        "certify": {
            "seconds": 10.0,
            "encode_seconds": 4,
            "decode_seconds": 5,
            "decode_tokens_per_second": 600,
            "world_size": 1,
        },
        "compress": {"seconds": 0.0},
    }
    frame = breakdown.seconds(timing)
    assert frame["share"].tolist() == [0.75, 0.25, 0]
    assert frame["parts"].tolist() == ["compile 10.2 s", "encode 4.0 s, decode 5.0 s", ""]
    assert frame["rate"].tolist()[:2] == [1300, 600] and math.isnan(frame["rate"][2])
    uncoded = {"certify": {"seconds": 1.0, "encode_seconds": None, "decode_tokens_per_second": None}}
    assert breakdown.seconds(uncoded)["parts"].tolist() == [""] and math.isnan(breakdown.seconds(uncoded)["rate"][0])


def test_params_that_differ_are_named_with_both_values():
    ours = {"train": {"steps": 7, "seed": 1, "new": [2]}, "quant": {"bits": 6}}
    theirs = {"train": {"steps": 7, "seed": 2, "old": None}, "quant": {"bits": 6}}
    found = breakdown.changed(ours, theirs).to_numpy().tolist()
    assert found == [["train.seed", "2", "1"], ["train.new", "—", "[2]"], ["train.old", "null", "—"]]
    assert breakdown.changed(ours, ours).empty
