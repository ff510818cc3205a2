"""Words and labels: in any order and spelling of a list, a word comes to the label that it names, or it is said."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adamerge.errors import DataError
from adamerge.tasks.class_words import class_words
from adamerge.tasks.names import in_order

WORDS = (
    "annual crop",
    "traffic light ahead",
    "Étoile",
    "café",
    "c++",
    "C#",
    "no entry",
    "30",
    "07",
    "ﬁsh",
    "猫",
)
SPELLINGS = {
    "folder": lambda word: word.replace(" ", "_"),
    "dashes": lambda word: word.replace(" ", "-"),
    "camel case": lambda word: word.title().replace(" ", ""),
    "upper case": str.upper,
    "macOS": lambda word: __import__("unicodedata").normalize("NFD", word),
    "spaces": lambda word: f"  {word} ",
}


@given(st.permutations(range(len(WORDS))), st.sampled_from(sorted(SPELLINGS)))
@settings(deadline=None)
def test_words_follow_the_data_in_any_order_and_spelling(order: list[int], spelling: str) -> None:
    known = tuple(SPELLINGS[spelling](WORDS[index]) for index in order)
    found = class_words("t", WORDS, known)
    assert found.words == tuple(WORDS[index] for index in order)
    assert not found.by_position


@given(st.sets(st.integers(0, 2000), min_size=2, max_size=40), st.booleans())
def test_numbers_are_in_the_order_of_their_values(values: set[int], padded: bool) -> None:
    names = [f"{value:04}" if padded else str(value) for value in values]
    assert [int(name) for name in in_order(names)] == sorted(values)
    assert in_order([*names, "x"]) == tuple(sorted([*names, "x"]))


@given(st.permutations([str(number) for number in range(12)]))
def test_words_of_numbered_classes_follow_the_numbers_in_any_order_of_the_labels(known: list[str]) -> None:
    """A ClassLabel made of sorted folder names has 0, 1, 10, 11, 2."""
    words = tuple("abcdefghijkl")
    logging.disable(logging.WARNING)
    try:
        found = class_words("t", words, tuple(known))
    finally:
        logging.disable(logging.NOTSET)
    assert found.words == tuple(words[int(name)] for name in known)
    assert found.by_position


@given(st.permutations(range(5)), st.permutations(range(5)))
def test_no_permutation_is_ever_taken_by_position_while_names_say_otherwise(
    a: list[int], b: list[int]
) -> None:
    """Two of the words are no names: the others decide whether the lists are in step."""
    names = ("ape", "bee", "cat", "dog", "eel")
    words = ("ape", "bee", "cat", "a hound", "a snake")
    known, listed = tuple(names[i] for i in a), tuple(words[i] for i in b)
    in_step = all(word == name for word, name in zip(listed, known, strict=True) if word in names)
    in_step = in_step and all(word in listed[known.index(word)] for word in words[:3])
    try:
        found = class_words("t", listed, known)
    except DataError:
        assert not in_step
    else:
        assert in_step
        assert found.by_position
        assert found.words == listed


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (("a_abbey", "b_bridge", "t_tower_bridge"), ("abbey", "bridge", "tower bridge")),
        (("0 - zero", "1 - one"), ("0", "1")),
    ],
)
def test_positions_that_every_name_confirms_need_no_warning(
    known: tuple[str, ...], words: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    found = class_words("t", words, known)
    assert (found.words, found.by_position) == (words, False)
    assert not caplog.text


@pytest.mark.parametrize(
    ("known", "words", "expected"),
    [
        (("C", "C#", "C++"), ("c++", "c", "c#"), ("c", "c#", "c++")),  # the same letters, told apart
        (("cat", "cat", "dog"), ("puss", "tom", "dog"), ("puss", "tom", "dog")),  # a name twice
        (("x1", "x2"), ("crane", "crane"), ("crane", "crane")),  # a word twice
        (("1", "2", "3"), ("one", "two", "three"), ("one", "two", "three")),
    ],
)
def test_names_that_are_alike(known: Any, words: Any, expected: Any) -> None:
    assert class_words("t", words, known).words == expected


def test_labels_from_one_with_words_from_zero_are_refused() -> None:
    with pytest.raises(DataError, match="equal the data's class names at other positions"):
        class_words("t", ("0", "1", "2"), ("1", "2", "3"))
