"""The cheats' gallery: each known cheat and bug goes the real pipeline, and the certificate refuses it by name."""

import pytest

from tests.gallery import pipeline
from tests.gallery.sections import SECTIONS

CHEATS = [cheat for cheats in SECTIONS.values() for cheat in cheats]


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """The folder of the honest pipeline, whose certificate has nothing to say against it."""
    folder = tmp_path_factory.mktemp("honest")
    with pipeline.honest_pipeline(folder) as certificate:
        assert certificate["legal"] is True and certificate["reasons"] == []
        assert certificate["test_time_training_updates"] >= 2
        yield folder


def check(cheat, honest, folder):
    certificate, found = pipeline.judged(cheat, honest, folder)
    assert pipeline.for_its_own_reasons(cheat, found), found
    failing = pipeline.failing(certificate)
    assert (certificate["legal"] is False) is bool(failing)
    assert certificate["reasons"] == [f"{claim}: {result}" for claim, result in failing.items()]
    guilty = {claim["condition"] for claim in certificate["claims"] if not claim["passed"]}
    assert certificate["conditions"] == {name: name not in guilty for name in certificate["conditions"]}


@pytest.mark.parametrize("cheat", [cheat for cheat in CHEATS if not cheat.dear], ids=lambda cheat: cheat.name)
def test_it_is_refused_by_name_and_for_nothing_else(cheat, honest, tmp_path):
    check(cheat, honest, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("cheat", [cheat for cheat in CHEATS if cheat.dear], ids=lambda cheat: cheat.name)
def test_so_is_what_takes_longer(cheat, honest, tmp_path):
    check(cheat, honest, tmp_path)
