import random
from collections import Counter

import pytest

from soundback.sources.sampling import sample_ids, split_of


def test_asking_for_more_keeps_what_was_drawn_before():
    ids = [f"{number:04x}" for number in range(1000)]
    small, large = (sample_ids(ids, n, seed=1) for n in (300, 500))
    assert large[:300] == small
    assert len(set(large)) == 500


def test_a_sample_depends_neither_on_the_order_of_the_index_nor_on_other_ids():
    ids = [f"{number:04x}" for number in range(200)]
    shuffled = random.Random(0).sample(ids, k=len(ids))
    assert sample_ids(shuffled, 50, seed=1) == sample_ids(ids, 50, seed=1)
    few = sample_ids(ids[:100], 100, seed=1)
    assert [each for each in sample_ids(ids, 200, seed=1) if each in set(few)] == few


def test_another_seed_draws_another_sample():
    ids = [f"{number:04x}" for number in range(200)]
    assert sample_ids(ids, 50, seed=1) != sample_ids(ids, 50, seed=2)


def test_splits_have_their_shares():
    counts = Counter(split_of(f"{n:011d}", validation_share=0.1, test_share=0.2) for n in range(20_000))
    assert counts["test"] / 20_000 == pytest.approx(0.2, abs=0.01)
    assert counts["validation"] / 20_000 == pytest.approx(0.1, abs=0.01)


def test_a_larger_share_of_validation_takes_from_training_alone():
    for number in range(2000):
        before, after = (split_of(f"{number:011d}", validation_share=share, test_share=0.2) for share in (0.1, 0.3))
        assert before == after or (before, after) == ("train", "validation")


def test_a_sample_is_what_a_whole_ranking_begins_with():
    ids = [f"{number:04x}" for number in range(500)]
    ranking = sample_ids(ids, len(ids), seed=3)
    assert sorted(ranking) == sorted(ids)
    assert all(sample_ids(ids, n, seed=3) == ranking[:n] for n in (0, 1, 17, 499, 10_000))


def test_ids_that_differ_in_case_alone_are_drawn_and_split_apart():
    pairs = [(f"ab{number:09d}", f"aB{number:09d}") for number in range(200)]
    assert len(set(sample_ids([each for pair in pairs for each in pair], 400, seed=1))) == 400
    splits = [[split_of(each, validation_share=0.3, test_share=0.3) for each in pair] for pair in pairs]
    assert any(small != large for small, large in splits)
