"""Scoring in blocks held to single steps, for every option of the network and of the evaluation; and causality of each.

The single steps follow the rules as a decoder would: no token is known before it is scored.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from fairway.lm.model import GPT, StreamState
from fairway.score.config import Eval
from fairway.score.streaming import log_probabilities, score_stream
from fairway.score.windows import score_windows

OPTIONS = [
    {},
    {"heads": 2},
    {"kv_heads": 4},
    {"kv_heads": 1},
    {"activation": "leaky_relu2"},
    {"activation": "swiglu"},
    {"activation": "square_glu"},
    {"rope_dims": 0},
    {"rope_dims": 8, "rope_base_length": 0},
    {"xsa_layers": 0},
    {"xsa_layers": 3},
    {"gated_attention": False},
    {"value_residual": False},
    {"value_embedding_layers": []},
    {"value_embedding_layers": [1]},
    {"unet_skips": "none"},
    {"unet_skips": "plain"},
    {"residual_mix": False, "depth_scale": False},
    {"recurrence": "none"},
    {"recurrence": "append"},
    {"recurrence": "append", "unet_skips": "plain", "recurrence_layers": [-2, -1], "recurrence_passes": 3},
    {"recurrence_passes": 3},
    {"mod_layers": [1]},
    {"mod_layers": [0, 1, 2], "activation": "square_glu", "mod_capacity": 0.25},
    {"bigram_hash": "linear"},
    {"bigram_buckets": 0},
    {"smear_gate": False},
    {"bigram_buckets": 0, "smear_gate": False},
    {"tied_embeddings": False},
]
STREAMING = Eval(context=6, stride=4, block=7, batch=2)
EVALUATIONS = {
    "stream": STREAMING,
    "documents": dataclasses.replace(STREAMING, reset="document"),
    "segments": dataclasses.replace(STREAMING, segment_tokens=8),
    "segments, documents": dataclasses.replace(STREAMING, segment_tokens=8, reset="document"),
}
TOKENS = np.random.default_rng(0).integers(2, 64, 25, dtype=np.uint16)
TOKENS[[0, 10, 15]] = 1  # documents


@pytest.fixture(params=OPTIONS, ids=str, scope="module")
def model(request, tiny, shaken) -> GPT:
    return shaken(dataclasses.replace(tiny, **request.param))


@torch.no_grad()
def single_steps(model: GPT, tokens: np.ndarray, config: Eval) -> dict[str, np.ndarray]:
    """Nats and entropies by the definition, a token at a time."""
    reset, nats, entropies = config.reset == "document", [], []
    state = StreamState.start(config.context, reset)
    for target in range(len(tokens) - 1):
        if config.segment_tokens and target % config.segment_tokens == 0:
            state = StreamState.start(config.context, reset)
            for token in tokens[max(0, target - config.context) : target].tolist():
                model.hidden(torch.tensor([[token]]), state)
        hidden_D = model.hidden(torch.tensor([[int(tokens[target])]]), state)[0, 0]
        predicted = log_probabilities(model, hidden_D).double().numpy()
        nats.append(-predicted[tokens[target + 1]])
        entropies.append(-(np.exp(predicted) * predicted).sum())
    return {"nats": np.array(nats), "entropy": np.array(entropies)}


@pytest.mark.parametrize("evaluation", EVALUATIONS)
def test_blocks_equal_single_steps(model, evaluation):
    expected = single_steps(model, TOKENS, EVALUATIONS[evaluation])
    for block, batch in ((7, 2), (64, 64), (3, 1)):
        found = score_stream(model, TOKENS, dataclasses.replace(EVALUATIONS[evaluation], block=block, batch=batch))
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-4)


def windows(model: GPT, tokens: np.ndarray) -> dict[str, np.ndarray]:
    return score_windows(model, tokens, 6, 4, 3)


def streaming(evaluation: str) -> Callable:
    return lambda model, tokens: score_stream(model, tokens, EVALUATIONS[evaluation])


@pytest.mark.parametrize("scorer", [windows, *map(streaming, EVALUATIONS)], ids=["windows", *EVALUATIONS])
def test_a_token_changes_no_score_before_its_own(model, scorer):
    """A token becomes another, a document's start, or no longer one; the next score does change."""
    plain = scorer(model, TOKENS)
    for position, token in ((13, 40), (13, 1), (15, 40), (1, 30)):
        other = TOKENS.copy()
        other[position] = token
        found = scorer(model, other)
        np.testing.assert_allclose(found["nats"][: position - 1], plain["nats"][: position - 1], atol=1e-5)
        np.testing.assert_allclose(found["entropy"][:position], plain["entropy"][:position], atol=1e-5)
        assert abs(found["entropy"][position] - plain["entropy"][position]) > 1e-5
