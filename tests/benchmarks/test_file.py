"""The file task: splits, bad rows, rewards, errors, and public data in each format."""

import json

import pytest
from bakeoff.benchmarks.file import File, FileSettings
from bakeoff.benchmarks.vader import compound
from pydantic import ValidationError

from bakeoff.errors import DataError


def write(path, rows):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def pairs(*numbers):
    return [{"prompt": f"p{number}", "completion": f"c{number}"} for number in numbers]


def load(**settings):
    return File(FileSettings(**settings)).load()


def test_rows_of_two_files(tmp_path):
    """Ids name split and line, and source, licence and fingerprint are filled in."""
    train, test = write(tmp_path / "a.jsonl", ["", *pairs(0, 1)]), write(tmp_path / "b.jsonl", pairs(2))
    data = load(train=train, test=test, licence="MIT")
    assert data.train == [
        {"id": "train:2", "prompt": "p0", "completion": "c0"},
        {"id": "train:3", "prompt": "p1", "completion": "c1"},
    ]
    assert data.test == [{"id": "test:1", "prompt": "p2", "completion": "c2"}]
    assert data.provides == {"prompts", "demonstrations"}
    assert (data.licence, data.source) == ("MIT", f"{train} and {test}")
    assert data.fingerprint == load(train=train, test=test).fingerprint
    assert data.fingerprint != load(train=train, test=test, limit=1).fingerprint
    assert load(train=train, test=test).licence == "not stated"


def test_every_bad_row_is_named(tmp_path):
    """Nothing vanishes: usable and bad rows add up to the file, and each bad one has line and reason."""
    train = write(
        tmp_path / "a.jsonl", [pairs(0)[0], "{", {"prompt": "p1"}, pairs(0)[0], {"prompt": "p0", "completion": "x"}]
    )
    test = write(tmp_path / "b.jsonl", pairs(0, 2))
    data = load(train=train, test=test)
    assert [row["id"] for row in data.train] == ["train:1", "train:5"]
    assert [row["id"] for row in data.test] == ["test:2"]
    assert [(bad.file, bad.line) for bad in data.bad_rows] == [
        (str(train), 2),
        (str(train), 3),
        (str(train), 4),
        (str(test), 1),
    ]
    reasons = [bad.reason for bad in data.bad_rows]
    assert reasons[0].startswith("invalid JSON")
    assert reasons[1:] == ['no "completion"', "the same as line 1", "its prompt is also in the training rows (train:5)"]


def test_held_out_prompts_are_never_trained_on(tmp_path):
    """All rows of a prompt fall on one side, about the fraction asked for is held out, and nothing is lost."""
    rows = [{"prompt": f"p{number}", "completion": f"{copy}"} for number in range(300) for copy in range(2)]
    data = load(train=write(tmp_path / "a.jsonl", rows), test_fraction=0.2)
    assert not {row["prompt"] for row in data.train} & {row["prompt"] for row in data.test}
    assert len(data.train) + len(data.test) == 600
    assert 0.12 < len(data.test) / 600 < 0.28


def test_a_longer_file_holds_out_the_same_prompts(tmp_path):
    """Adding rows moves none between the splits, so an old test result stays a test result."""
    short = load(train=write(tmp_path / "a.jsonl", pairs(*range(200))))
    longer = load(train=write(tmp_path / "b.jsonl", pairs(*range(-50, 400))))
    assert {row["prompt"] for row in short.test} <= {row["prompt"] for row in longer.test}
    assert {row["prompt"] for row in short.train} <= {row["prompt"] for row in longer.train}


@pytest.mark.parametrize("fraction", [0.0001, 0.5, 0.9999])
def test_a_short_file_still_has_both_splits(tmp_path, fraction):
    """Two prompts are one to train on and one to test with; one prompt is an error."""
    data = load(train=write(tmp_path / "a.jsonl", pairs(0, 1)), test_fraction=fraction)
    assert (len(data.train), len(data.test)) == (1, 1)
    with pytest.raises(DataError, match="one prompt is too few"):
        load(train=write(tmp_path / "b.jsonl", pairs(0)))


def test_columns_are_mapped(tmp_path):
    """A mapped column is read under its standard name, also when it hides another."""
    rows = [{"question": f"q{n}", "prompt": "not this", "answer": f"a{n}"} for n in range(4)]
    path = write(tmp_path / "a.jsonl", rows)
    data = load(
        train=path,
        test=write(tmp_path / "b.jsonl", [rows[0] | {"question": "new"}]),
        columns={"prompt": "question", "completion": "answer"},
    )
    assert data.train[3] == {"id": "train:4", "prompt": "q3", "completion": "a3"}


def test_unknown_columns_are_answered_with_a_mapping(tmp_path):
    """The error names the columns found and the setting that mends it; following it works."""
    path = write(tmp_path / "a.jsonl", [{"question": f"q{n}", "answer": f"a{n}"} for n in range(9)])
    with pytest.raises(DataError, match="the columns question, answer are in no known format") as caught:
        load(train=path)
    assert "columns: {prompt: question, completion: answer}" in caught.value.fix
    assert load(train=path, columns={"prompt": "question", "completion": "answer"}).provides >= {"demonstrations"}
    with pytest.raises(DataError, match="maps prompt to 'qestion'") as caught:
        load(train=path, columns={"prompt": "qestion"})
    assert "Did you mean 'question'?" in str(caught.value)
    with pytest.raises(DataError) as caught:
        load(train=write(tmp_path / "b.jsonl", [{"x": 1}]))
    assert "columns: {prompt: ..., completion: ...}" in caught.value.fix


def test_a_file_without_one_usable_row_is_an_error(tmp_path):
    """The error names the first bad line and its reason."""
    path = write(tmp_path / "a.jsonl", ["", {"prompt": "", "completion": "x"}, "{"])
    with pytest.raises(DataError, match=r'a\.jsonl:2: "prompt" is empty. None of the file\'s 2 rows'):
        load(train=path)
    with pytest.raises(DataError, match=r"b\.jsonl:1: invalid JSON"):
        load(train=write(tmp_path / "b.jsonl", ["{"]))
    with pytest.raises(DataError, match="holds no rows"):
        load(train=write(tmp_path / "c.jsonl", [""]))
    train = write(tmp_path / "d.jsonl", pairs(1))
    with pytest.raises(DataError, match="its prompt is also in the training rows"):
        load(train=train, test=train)


def test_a_bad_row_of_a_folder_is_told_by_its_own_file(tmp_path):
    """Rows are counted through the folder; whoever mends one needs the file and the line there."""
    write(tmp_path / "a.jsonl", pairs(0, 1))
    write(tmp_path / "b.jsonl", ["", {"prompt": "alone", "completion": ""}, *pairs(2, 0)])
    bad_rows = load(train=tmp_path).bad_rows
    assert [(bad.file, bad.line, bad.reason) for bad in bad_rows] == [
        (str(tmp_path / "b.jsonl"), 2, '"completion" is empty'),
        (str(tmp_path / "b.jsonl"), 4, f"the same as line 1 of {tmp_path / 'a.jsonl'}"),
    ]


def test_half_a_character_is_a_bad_row(tmp_path):
    """JSON can spell half of a surrogate pair, which no tokenizer takes: one such row would end every cell."""
    path = write(tmp_path / "a.jsonl", [*pairs(0, 1), r'{"prompt": "\ud83d", "completion": "x"}', *pairs("\U0001f600")])
    data = load(train=path)
    assert [bad.line for bad in data.bad_rows] == [3]
    assert "surrogate" in data.bad_rows[0].reason
    assert len(data.train) + len(data.test) == 3


def test_too_few_rows_say_what_became_of_the_others(tmp_path):
    """A quotation that is never closed eats the file: the error tells of it, not only that one row is left."""
    path = tmp_path / "a.csv"
    path.write_text('prompt,completion\na,b\n"c,d\ne,f\n')
    with pytest.raises(DataError, match=r"one prompt is too few.*a\.csv:3: invalid CSV: unexpected end of data"):
        load(train=path)


def test_number_reward(tmp_path):
    """The last number of the completion counts, thousands commas or not; rows without a number cannot be used."""
    rows = [{"prompt": "a", "answer": 1200}, {"prompt": "b", "answer": "none"}, {"prompt": "c"}]
    test = [{"prompt": f"t{n}", "answer": answer} for n, answer in enumerate(["5", "5.0", "1,200"])]
    task = File(
        FileSettings(train=write(tmp_path / "a.jsonl", rows), test=write(tmp_path / "b.jsonl", test), reward="number")
    )
    data = task.load()
    assert [bad.reason for bad in data.bad_rows] == [
        '"answer" holds no number',
        'no "answer", which the reward number compares with',
    ]
    assert data.provides == {"prompts", "reward"}
    completions = ["3 + 2 = 5", "5 or 6", "#### 1200."]
    assert task.reward(data.test, completions) == task.gold(data.test, completions) == [1.0, 0.0, 1.0]
    assert data.references == {"best constant answer '5'": 2 / 3}
    assert task.gold_metric is not None and task.gold_metric.name == "accuracy"


def test_exact_reward(tmp_path):
    """White space around is forgiven and nothing else; extra columns are there for all rows."""
    rows = [{"prompt": "a", "answer": "Yes", "kind": "x", "id": 7}, {"prompt": "b", "answer": " No "}]
    task = File(
        FileSettings(
            train=write(tmp_path / "a.jsonl", rows),
            test=write(tmp_path / "b.jsonl", [{"prompt": "t", "answer": "No"}]),
            reward="exact",
        )
    )
    data = task.load()
    assert data.train[0] == {"id": "train:1", "prompt": "a", "answer": "Yes", "kind": "x"}
    assert data.train[1]["kind"] is None
    assert task.reward(data.train, ["\nYes", "no"]) == [1.0, 0.0]
    assert data.references == {"best constant answer 'No'": 1.0}


def test_sentiment_reward(tmp_path):
    """Text rows scored by VADER in training and by the fined score as gold."""
    rows = [{"text": f"film number {n} is quite a good one"} for n in range(20)]
    task = File(FileSettings(train=write(tmp_path / "a.jsonl", rows), reward="sentiment", prompt_words=3))
    data = task.load()
    assert data.provides == {"text", "prompts", "demonstrations", "reward"}
    assert data.train[0]["completion"] == " is quite a good one"
    loop = ["love love love love"] * 2
    assert task.reward(data.train[:2], loop) == [compound(loop[0])] * 2
    assert task.gold(data.train[:2], loop) == [-1.0, -1.0]
    assert task.reward_metric != task.gold_metric


def test_without_a_reward_there_is_none(tmp_path):
    """A task that was given no reward declares no metric for it and refuses to score."""
    task = File(FileSettings(train=write(tmp_path / "a.jsonl", pairs(0, 1))))
    assert task.reward_metric is task.gold_metric is None
    for score in (task.reward, task.gold):
        with pytest.raises(LookupError):
            score([{"id": "0"}], ["x"])


def test_contradicting_settings_are_refused(tmp_path):
    """One source of training rows, and test rows from the same kind of place."""
    for settings in ({}, {"train": "a.jsonl", "hub": "org/name"}, {"hub": "org/name", "test": "b.jsonl"}):
        with pytest.raises(ValidationError):
            FileSettings(**settings)
    with pytest.raises(ValidationError, match="columns"):
        FileSettings(train="a.jsonl", columns={"promt": "question"})


def test_hub_dataset(tmp_path, monkeypatch):
    """A dataset with two splits is read through ``datasets``, here from a folder laid out like one on the hub."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.jsonl", pairs(0, 1, 2))
    write(tmp_path / "set" / "test.jsonl", pairs(2, 3))
    folder = str(tmp_path / "set")
    data = load(hub=folder, test_split="test")
    assert [row["prompt"] for row in data.test] == ["p3"]
    assert data.source == f"{folder}[train] and {folder}[test]"
    assert [(bad.file, bad.line) for bad in data.bad_rows] == [(f"{folder}[test]", 1)]


PUBLIC = [
    ("hh_helpful_trl_train_1000.jsonl", {}, 1000, {"preferences", "demonstrations", "prompts"}),
    ("hh_helpful_raw_train_1000.jsonl", {}, 1000, {"preferences", "demonstrations", "prompts"}),
    ("hh_helpful_conversational_test_200.jsonl", {}, 200, {"preferences", "demonstrations", "prompts"}),
    ("oasst_preferences_conversational.jsonl", {}, 93, {"preferences", "demonstrations", "prompts"}),
    ("gsm8k_prompt_answer_train_500.jsonl", {"reward": "number"}, 500, {"prompts", "reward"}),
    (
        "gsm8k_train_500.jsonl",
        {"columns": {"prompt": "question", "completion": "answer"}, "reward": "number"},
        500,
        {"prompts", "demonstrations", "reward"},
    ),
    ("sentiment_train_800.jsonl", {"reward": "sentiment"}, 800, {"text", "prompts", "demonstrations", "reward"}),
    ("sft_prompt_completion_300.jsonl", {}, 300, {"prompts", "demonstrations"}),
]


@pytest.mark.parametrize(("name", "settings", "n_rows", "provides"), PUBLIC, ids=[case[0] for case in PUBLIC])
def test_public_data(public_data, name, settings, n_rows, provides):
    """Real data in each format loads, and usable and bad rows add up to what the file is known to hold."""
    data = load(train=public_data(name), **settings)
    assert len(data.train) + len(data.test) + len(data.bad_rows) == n_rows
    assert len(data.bad_rows) <= n_rows / 10
    assert data.provides == provides


def test_raw_dialogues_are_cut_like_the_prepared_ones(public_data):
    """hh-rlhf's raw dialogues give exactly the rows of the set that was split by hand."""
    raw = load(train=public_data("hh_helpful_raw_train_1000.jsonl"))
    prepared = load(train=public_data("hh_helpful_trl_train_1000.jsonl"))
    assert (raw.train, raw.test) == (prepared.train, prepared.test)


def test_worked_solutions_earn_their_own_reward(public_data):
    """GSM8K's solutions end with the answer, so the number reward gives each of them 1."""
    settings = FileSettings(
        train=public_data("gsm8k_train_500.jsonl"),
        columns={"prompt": "question", "completion": "answer"},
        reward="number",
    )
    rows = File(settings).load().train
    assert File(settings).gold(rows, [row["completion"] for row in rows]) == [1.0] * len(rows)


def test_a_folder_of_texts(tmp_path):
    """Every file is a row with an opening and the rest, and all of it as text; some are held out."""
    for number in range(30):
        (tmp_path / f"{number:02}.txt").write_text(f"One two three four {number} five six seven eight nine ten.\n")
    data = File(FileSettings(train=tmp_path)).load()
    assert data.provides == {"text", "prompts", "demonstrations"}
    assert len(data.train) + len(data.test) == 30
    assert data.train[0]["text"].startswith(data.train[0]["prompt"])


@pytest.mark.parametrize(
    ("row", "settings", "told"),
    [
        (
            {"prompt": "1 + 1?", "solution": "It is 2.", "answer": "2"},
            {},
            "not read: solution, answer, though columns: {completion: answer} makes one a completion and "
            "reward: number or reward: exact compares with answer",
        ),
        ({"prompt": "1 + 1?", "level": 3}, {}, "not read: level"),
        ({"prompt": "1 + 1?", "answer": "2"}, {"reward": "number"}, ""),
        ({"prompt": "1 + 1?", "completion": "2", "level": 3}, {}, ""),
    ],
)
def test_a_file_of_prompts_says_what_else_it_could_give(row, settings, told, tmp_path):
    """Columns that nothing uses are named, with the settings that would use them."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row | {"prompt": f"{n} + 1?"}) + "\n" for n in range(8)))
    assert File(FileSettings(train=path, **settings)).load().unread == told
