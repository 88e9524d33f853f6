import hashlib

from hypothesis import given
from hypothesis import strategies as st

from fairway.text.split import SmallestSample, digest, split_of


def test_digest_is_the_first_eight_bytes_of_sha256():
    assert digest(b"abc") == 0xBA7816BF8F01CFEA  # FIPS 180-2, appendix B.1


def test_val_lies_below_holdout_below_train():
    step = 2**64 // 20
    assert [split_of(step * twentieth + step // 2, 0.10, 0.05) for twentieth in range(4)] == [
        "val",
        "holdout",
        "holdout",
        "train",
    ]
    assert split_of(0, 0.05, 0.05) == "val"
    assert split_of(2**64 - 1, 0.5, 0.4) == "train"


def test_the_witness_has_the_largest_digests_and_takes_from_train_alone():
    identities = [digest(str(number).encode()) for number in range(2000)]
    before, after = ([split_of(i, 0.1, 0.05, fraction) for i in identities] for fraction in (0.0, 0.04))
    assert "witness" not in before and 40 < after.count("witness") < 120
    assert {old for old, new in zip(before, after, strict=True) if new == "witness"} == {"train"}
    assert all(new in (old, "witness") for old, new in zip(before, after, strict=True))
    assert min(i for i, name in zip(identities, after, strict=True) if name == "witness") / 2**64 > 0.96


def test_changing_the_holdout_leaves_val_alone():
    identities = [digest(str(number).encode()) for number in range(500)]
    val = {i for i in identities if split_of(i, 0.05, 0.1) == "val"}
    assert 25 < len(val) < 80
    assert val == {i for i in identities if split_of(i, 0.4, 0.1) == "val"}


@given(st.sets(st.text(min_size=1), min_size=1), st.integers(1, 200), st.randoms())
def test_sample_is_the_shortest_prefix_by_digest_that_reaches_the_limit(texts, limit, random):
    def sha(text):
        return hashlib.sha256(text.encode()).digest()[:8]

    expected, size = [], 0
    for text in sorted(texts, key=sha):
        if size < limit:
            expected.append(text)
            size += len(text.encode())
    sample = SmallestSample(limit)
    shuffled = sorted(texts)
    random.shuffle(shuffled)
    for text in shuffled:
        sample.add(digest(text.encode()), text, len(text.encode()))
    assert sample.texts() == expected
