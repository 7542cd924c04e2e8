"""Test prompts that training saw."""

from bakeoff.overlap import overlap

LONG = "one two three four five six seven eight nine ten"


def test_equal_but_for_case_and_spaces_is_exact():
    """What a tokenizer may tell apart is the same prompt to a reader."""
    found = overlap(["The  film\nwas"], {"a": "the film was", "b": "The film is"})
    assert found == {"exact": 1, "near": 0, "examples": ["a"]}


def test_shared_runs_of_eight_words_are_near():
    """Ten words have three runs of eight. All of them within a longer training prompt: near; one of them: not."""
    assert overlap([f"so {LONG} so"], {"a": LONG})["near"] == 1
    assert overlap(["one two three four five six seven eight"], {"a": LONG})["near"] == 0


def test_short_prompts_are_never_near():
    """Seven words have no run of eight."""
    assert overlap([LONG], {"a": "one two three four five six seven"}) == {"exact": 0, "near": 0, "examples": []}


def test_examples_are_the_first():
    """A report names some, not a thousand."""
    found = overlap([f"prompt {n}" for n in range(100)], {f"{n}": f"prompt {n}" for n in range(50)})
    assert found["exact"] == 50
    assert found["examples"] == [f"{n}" for n in range(20)]
