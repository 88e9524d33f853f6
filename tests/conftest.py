"""A tiny network for tests of several packages: every feature on, every parameter random, so that nothing hides at zero.

One thread and a fixed sequence of Hypothesis examples: a test that fails, fails again.
"""

import dataclasses
import os
from pathlib import Path

import hypothesis
import pytest
import torch

from fairway.lm.config import Architecture
from fairway.lm.model import GPT
from fairway.quant.config import Quant

hypothesis.settings.register_profile("fairway", deadline=None, derandomize=True)
hypothesis.settings.load_profile("fairway")
torch.set_num_threads(1)
# Clones of the repository share its machine code (fairway/kernels.py); this process finds it there by itself.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).resolve().parents[1] / "fairway/__pycache__"))

os.environ.setdefault("NPROC", "1")  # stages that run in this process start no others

PLAIN = Quant(method="gptq", calibration_tokens=1000)


# The files that take longest begin first, so that no worker is left alone with one at the end. The second needs no kernels: two
# that begin side by side without machine code would each compile what the other does.
LONGEST = """presets_pipeline train_stage repro gallery sweeps daily_life quant_stage step_by_step causality predictor
technique""".split()  # noqa: SIM905


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {f"test_{name}.py": index for index, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session")
def tiny() -> Architecture:
    """Three layers, the middle one twice: 0, 1, 1, 2, of which the second half is handed the outputs of the first; the last
    excludes its own value, the first and the last have value embeddings."""
    return Architecture(
        layers=3,
        width=32,
        heads=4,
        kv_heads=2,
        activation="star_relu",
        leaky_slope=0.5,
        rope_dims=4,
        rope_base=100.0,
        rope_base_length=8,
        qk_gain=1.5,
        xsa_layers=1,
        gated_attention=True,
        value_residual=True,
        value_embedding_layers=[0, -1],
        value_embedding_width=8,
        unet_skips="gated",
        residual_mix=True,
        depth_scale=True,
        recurrence="insert",
        recurrence_layers=[1],
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


@pytest.fixture(scope="session")
def quant_params():
    """Changes → the section `quant`; unchanged it is GPTQ on plain grids of 6 bits, one step a row, by deviation."""
    return lambda **changes: dataclasses.replace(PLAIN, **changes)
