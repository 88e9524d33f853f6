"""The documents of the tiny pipeline."""

import json

import numpy as np

WORDS = """the people of our country have done great work in peace and war with one hope naïve Zürich € 世界 nation state law
every year under which this Congress may be asked to provide""".split()  # noqa: SIM905  # some letters get no token of their own


def documents(count: int = 60, seed: int = 0) -> str:
    """Small documents, all different, as JSON lines; every third begins with a space."""
    random, lines = np.random.default_rng(seed), []
    chances = 1 / np.arange(1, len(WORDS) + 1)
    for number in range(count):
        words = random.choice(WORDS, 40, p=chances / chances.sum())
        lines.append(json.dumps({"text": " " * (number % 3 == 0) + " ".join(words) + f".\nNo. {number}"}) + "\n")
    return "".join(lines)
