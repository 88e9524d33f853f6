"""The cheats' gallery: each known cheat and bug goes the real pipeline, and the certificate refuses it by name."""

import pytest

from tests.gallery import cheats_artifact, cheats_data, cheats_score, pipeline

CHEATS = cheats_score.CHEATS + cheats_data.CHEATS + cheats_artifact.CHEATS


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """The folder of the honest pipeline, whose certificate has nothing to say against it."""
    folder = tmp_path_factory.mktemp("honest")
    with pipeline.honest_pipeline(folder) as certificate:
        assert certificate["legal"] is True and certificate["reasons"] == []
        assert certificate["test_time_training_updates"] >= 2
        yield folder


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.name)
def test_it_is_refused_by_name_and_for_nothing_else(cheat, honest, tmp_path):
    certificate = pipeline.judged(cheat, honest, tmp_path)
    failing = pipeline.failing(certificate)
    assert pipeline.for_its_own_reasons(cheat, failing), failing
    assert certificate["legal"] is False
    assert certificate["reasons"] == [f"{claim}: {result}" for claim, result in failing.items()]
    guilty = {claim["condition"] for claim in certificate["claims"] if not claim["passed"]}
    assert certificate["conditions"] == {name: name not in guilty for name in certificate["conditions"]}
