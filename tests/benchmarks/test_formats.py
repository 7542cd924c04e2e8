"""TRL's dataset formats: detection, suggestion, and what each makes of a row."""

import pytest
from bakeoff.benchmarks.formats import UnusableRowError, detect, standardise, suggest


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


@pytest.mark.parametrize(
    ("columns", "form"),
    [
        ({"prompt", "chosen", "rejected"}, "preferences"),
        ({"chosen", "rejected"}, "preferences"),
        ({"prompt", "messages", "prompt_id"}, "messages"),
        ({"prompt", "completion", "label"}, "demonstrations"),
        ({"prompt", "solution", "answer"}, "prompts"),
        ({"text", "label"}, "text"),
        ({"question", "answer"}, None),
        ({"chosen"}, None),
    ],
)
def test_detect(columns, form):
    """The most telling columns decide."""
    assert detect(columns) == form


@pytest.mark.parametrize(
    ("columns", "mapping"),
    [
        (["question", "answer"], {"prompt": "question", "completion": "answer"}),
        (["instruction", "input", "output"], {"prompt": "instruction", "completion": "output"}),
        (["Promt", "Completions"], {"prompt": "Promt", "completion": "Completions"}),
        (["prompt", "response"], {"completion": "response"}),
        (["query", "preferred", "dispreferred"], {"chosen": "preferred", "rejected": "dispreferred"}),
        (["sentence", "label"], {"text": "sentence"}),
        (["x", "y"], {}),
    ],
)
def test_suggest(columns, mapping):
    """Usual names and slips of the pen are recognised; a strange file gets no guess."""
    assert suggest(columns) == mapping


def test_demonstrations():
    """Text stays text to the last space; messages are reduced to role and content."""
    assert standardise("demonstrations", {"prompt": "Q:", "completion": " A\n"}, 8) == {
        "prompt": "Q:",
        "completion": " A\n",
    }
    row = {"prompt": [user("q") | {"id": 3}], "completion": [assistant("a")]}
    assert standardise("demonstrations", row, 8) == {"prompt": [user("q")], "completion": [assistant("a")]}


def test_text_beside_messages_becomes_a_turn():
    """A row is wholly text or wholly messages."""
    row = {"prompt": "q", "chosen": [assistant("a")], "rejected": [assistant("b")]}
    assert standardise("preferences", row, 8)["prompt"] == [user("q")]
    row = {"prompt": [user("q")], "completion": "a"}
    assert standardise("demonstrations", row, 8)["completion"] == [assistant("a")]


def test_preferences_give_the_chosen_as_demonstration():
    """Who can train on pairs can train on their better half."""
    row = standardise("preferences", {"prompt": "p", "chosen": "good", "rejected": "bad"}, 8)
    assert row == {"prompt": "p", "completion": "good", "chosen": "good", "rejected": "bad"}


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("\n\nHuman: hi\n\nAssistant: Yes", "\n\nHuman: hi\n\nAssistant: Yeah", "\n\nHuman: hi\n\nAssistant:"),
        (
            "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d e",
            "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d f",
            "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:",
        ),
        ("The film was good", "The film was great", "The film was"),
        ("Why?  Because", "Why?  Before", "Why?"),
    ],
)
def test_the_shared_beginning_is_the_prompt(chosen, rejected, prompt):
    """hh-rlhf is cut after "Assistant:", other text between words; prompt and completion make up the whole."""
    row = standardise("preferences", {"chosen": chosen, "rejected": rejected}, 8)
    assert row["prompt"] == prompt
    assert row["prompt"] + row["chosen"] == chosen
    assert row["prompt"] + row["rejected"] == rejected


def test_shared_messages_are_the_prompt():
    """Whole conversations are cut where they part, also beside a text column that repeats the question."""
    turns = [user("a"), assistant("b"), user("c")]
    row = {"chosen": [*turns, assistant("yes")], "rejected": [*turns, assistant("no")]}
    expected = {"prompt": turns, "completion": [assistant("yes")], "chosen": [assistant("yes")]}
    for values in (row, row | {"prompt": "a"}):
        assert standardise("preferences", values, 8) == expected | {"rejected": [assistant("no")]}


def test_the_last_assistant_turn_is_the_completion():
    """What follows it, a question without an answer, teaches nothing."""
    turns = [user("a"), assistant("b"), user("c"), assistant("d"), user("e")]
    assert standardise("messages", {"messages": turns}, 8) == {"prompt": turns[:3], "completion": [turns[3]]}


def test_text_is_cut_after_its_first_words():
    """White space stays where it was: prompt and completion make up the text."""
    row = standardise("text", {"text": " one  two three\nfour"}, 2)
    assert row == {"prompt": " one  two", "completion": " three\nfour", "text": " one  two three\nfour"}


@pytest.mark.parametrize(
    ("form", "values", "reason"),
    [
        ("prompts", {"prompt": None}, 'no "prompt"'),
        ("prompts", {"prompt": " \n"}, '"prompt" is empty'),
        ("prompts", {"prompt": []}, '"prompt" is empty'),
        ("prompts", {"prompt": 3}, '"prompt" is a number, not text or a list of messages'),
        ("prompts", {"prompt": ["hi"]}, 'message 1 of "prompt" is text'),
        ("prompts", {"prompt": [{"from": "human", "value": "hi"}]}, 'has no "role", only from, value'),
        ("prompts", {"prompt": [{"role": "user", "content": ["hi"]}]}, '"content" is a list, not text'),
        ("prompts", {"prompt": [user(""), user("x")]}, 'message 1 of "prompt" has an empty "content"'),
        ("demonstrations", {"prompt": "p"}, 'no "completion"'),
        ("demonstrations", {"prompt": "p", "completion": "c", "label": False}, '"label" is false'),
        ("preferences", {"prompt": "p", "chosen": "a", "rejected": "a"}, "are the same"),
        ("preferences", {"prompt": "p", "chosen": {"from": "gpt"}, "rejected": "a"}, '"chosen" is an object'),
        ("preferences", {"prompt": "p", "chosen": "a", "rejected": [assistant("b")]}, "the other a list of messages"),
        ("preferences", {"chosen": "Yes", "rejected": "No"}, "share no beginning"),
        ("preferences", {"chosen": [assistant("a")], "rejected": [assistant("b")]}, "share no beginning"),
        ("preferences", {"chosen": [user("q"), assistant("a")], "rejected": [user("q")]}, "one goes on"),
        ("messages", {"messages": "hi"}, '"messages" is text'),
        ("messages", {"messages": [user("a")]}, "no assistant turn that answers"),
        ("messages", {"messages": [assistant("a"), user("b")]}, "no assistant turn that answers"),
        ("text", {"text": "one two"}, '"text" has 2 words; the first 2 are the prompt'),
        ("text", {"text": [user("a")]}, '"text" is a list, not text'),
    ],
)
def test_unusable_rows_say_why(form, values, reason):
    """Every fault has its own reason, in the words of the file."""
    with pytest.raises(UnusableRowError) as caught:
        standardise(form, values, 2)
    assert reason in str(caught.value)
