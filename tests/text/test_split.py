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
