"""A tiny network for tests of several rooms: every feature on, every parameter random, so that nothing hides at zero.

One thread and a fixed sequence of Hypothesis examples: a test that fails, fails again.
"""

import hypothesis
import pytest
import torch

from fairway.lm.config import Architecture
from fairway.lm.model import GPT

hypothesis.settings.register_profile("fairway", deadline=None, derandomize=True)
hypothesis.settings.load_profile("fairway")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> Architecture:
    """Three layers: the middle one is handed the first one's output, the last excludes its own value."""
    return Architecture(
        layers=3,
        width=32,
        heads=4,
        kv_heads=2,
        mlp_multiple=2.0,
        leaky_slope=0.5,
        rope_dims=4,
        rope_base=100.0,
        qk_gain=1.5,
        xsa_layers=1,
        unet_skips=True,
        bigram_buckets=32,
        bigram_width=16,
        smear_gate=True,
        logit_softcap=10.0,
        vocabulary_size=64,
        bos=1,
        sequence_length=16,
    )


@pytest.fixture(scope="session")
def shaken():
    """architecture, seed → a network whose every parameter has moved from where training starts."""

    def build(architecture: Architecture, seed: int = 0) -> GPT:
        model = GPT(architecture)
        model.initialise(seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        return model.eval()

    return build
