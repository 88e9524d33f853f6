"""The rogues' gallery: each known cheat and bug goes the real course, and the certificate refuses it by name."""

import pytest

from tests.gallery import course, rogues_artifact, rogues_data, rogues_score

ROGUES = rogues_score.ROGUES + rogues_data.ROGUES + rogues_artifact.ROGUES


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """The folder of the honest course, whose certificate has nothing to say against it."""
    folder = tmp_path_factory.mktemp("honest")
    with course.honest_course(folder) as certificate:
        assert certificate["legal"] is True and certificate["reasons"] == []
        assert certificate["test_time_training_updates"] >= 2
        yield folder


@pytest.mark.parametrize("rogue", ROGUES, ids=lambda rogue: rogue.name)
def test_it_is_refused_by_name_and_for_nothing_else(rogue, honest, tmp_path):
    certificate = course.judged(rogue, honest, tmp_path)
    failing = course.failing(certificate)
    assert course.for_its_own_reasons(rogue, failing), failing
    assert certificate["legal"] is False
    assert certificate["reasons"] == [f"{claim}: {result}" for claim, result in failing.items()]
    guilty = {claim["condition"] for claim in certificate["claims"] if not claim["passed"]}
    assert certificate["conditions"] == {name: name not in guilty for name in certificate["conditions"]}
