"""Files as they come: line numbers, byte-order marks, broken lines, empty cells."""

import json

import pandas as pd
import pytest
from bakeoff.benchmarks.reading import read_hub, read_table

from bakeoff.errors import DataError

ROWS = [{"prompt": "a\u2028b", "n": 1}, {"prompt": 'é, "x"\nz', "n": None}]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def problems(table):
    return [(bad.line, bad.reason) for bad in table.bad_rows]


def test_json_lines_with_bom_crlf_and_blank_lines(tmp_path):
    """A file from a Windows editor reads like any other, and blank lines keep their place in the count."""
    lines = [json.dumps(ROWS[0], ensure_ascii=False), "", "   ", json.dumps(ROWS[1])]
    table = read_table(write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + "\r\n".join(lines).encode()))
    assert table.rows == [(1, ROWS[0]), (4, ROWS[1])]
    assert table.bad_rows == []
    assert table.columns == ["prompt", "n"]


def test_a_broken_line_does_not_hide_the_others(tmp_path):
    """Each line that cannot be read is named with its fault; NaN is a missing value."""
    content = b'{"prompt": "a", "x": NaN}\n{"prompt": \n[1]\n"\xff"\n' + b"[" * 100_000 + b'\n{"prompt": "b"}'
    table = read_table(write(tmp_path / "a.jsonl", content))
    assert table.rows == [(1, {"prompt": "a", "x": None}), (6, {"prompt": "b"})]
    lines, reasons = zip(*problems(table), strict=True)
    assert lines == (2, 3, 4, 5)
    for reason, words in zip(reasons, ("invalid JSON", "is a list", "not UTF-8", "nested too deeply"), strict=True):
        assert words in reason


@pytest.mark.parametrize(("name", "join"), [("a.jsonl", "\n".join), ("a.json", lambda rows: f"[{', '.join(rows)}]")])
def test_a_number_that_python_will_not_read_is_a_bad_row(name, join, tmp_path):
    """int() refuses more than 4300 digits, with a ValueError that is no JSONDecodeError."""
    table = read_table(write(tmp_path / name, join(['{"prompt": "a"}', f'{{"n": {"9" * 5000}}}'])))
    assert [values for _, values in table.rows] == [{"prompt": "a"}]
    assert "a number of too many digits" in table.bad_rows[0].reason


def test_what_follows_a_json_array_is_not_lost_in_silence(tmp_path):
    """Two arrays one after the other: the rows of the second are not read, and that is told."""
    table = read_table(write(tmp_path / "a.json", '[{"prompt": "a"}]\n[{"prompt": "b"}]\n'))
    assert table.rows == [(1, {"prompt": "a"})]
    assert problems(table) == [(1, "invalid JSON: text follows the end of the array; it was not read")]


def test_json_array_knows_the_lines_of_its_rows(tmp_path):
    """Rows of an indented array are found where they begin; what is no object is a bad row."""
    table = read_table(write(tmp_path / "a.json", '\n[\n {"prompt":\n "a"}, 3,\n\n {"prompt": "b"}\n]\n'))
    assert table.rows == [(3, {"prompt": "a"}), (6, {"prompt": "b"})]
    assert problems(table) == [(4, "the row is a number, not an object with named columns")]


def test_a_broken_json_array_keeps_the_rows_before_the_fault(tmp_path):
    """A file that was cut short is not thrown away, and the fault is named."""
    table = read_table(write(tmp_path / "a.json", '[{"prompt": "a"},\n{"prompt": "b"'))
    assert table.rows == [(1, {"prompt": "a"})]
    assert [line for line, _ in problems(table)] == [2]
    assert "nothing after it was read" in table.bad_rows[0].reason


def test_json_lines_under_the_ending_json(tmp_path):
    """Many sets call JSON lines .json."""
    assert read_table(write(tmp_path / "a.json", '{"prompt": "a"}\n{"prompt": "b"}')).rows[1] == (2, {"prompt": "b"})


def test_csv_cells(tmp_path):
    """Quoted line ends count as lines, an empty or NaN cell is missing, and None or NA is text like any other."""
    content = '\ufeffprompt,completion\r\n"two\r\nlines",None\r\n\r\nNaN,\r\nNA,nan\r\na,b,c\r\n'
    table = read_table(write(tmp_path / "a.csv", content))
    assert table.rows == [
        (2, {"prompt": "two\r\nlines", "completion": "None"}),
        (5, {"prompt": None, "completion": None}),
        (6, {"prompt": "NA", "completion": None}),
    ]
    assert problems(table) == [(7, "the row has 3 cells, the header 2")]


def test_csv_written_by_pandas_comes_back(tmp_path):
    """What a data frame wrote is read with its missing cells, and a cell longer than csv's own limit is no fault."""
    frame = pd.DataFrame({"prompt": ["x" * 200_000, "b"], "completion": ["1", None]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert [values for _, values in read_table(tmp_path / "a.csv").rows] == [
        {"prompt": "x" * 200_000, "completion": "1"},
        {"prompt": "b", "completion": None},
    ]


def test_an_unfinished_quotation_ends_a_csv_file(tmp_path):
    """Behind an open quotation mark nothing can be told apart; the rows before it are kept."""
    table = read_table(write(tmp_path / "a.csv", 'prompt\na\n"b\nc'))
    assert table.rows == [(2, {"prompt": "a"})]
    assert problems(table) == [(3, "invalid CSV: unexpected end of data; nothing after it was read")]


def test_parquet(tmp_path):
    """Nested messages and missing numbers survive; rows are counted from 1."""
    messages = [{"role": "user", "content": "hi"}]
    pd.DataFrame({"messages": [messages, messages], "x": [1.5, float("nan")]}).to_parquet(tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").rows == [
        (1, {"messages": messages, "x": 1.5}),
        (2, {"messages": messages, "x": None}),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pdf", b"x", "'.pdf' names no format"),
        ("a.parquet", b"x", "not a Parquet file"),
        ("a.csv", b"prompt\na\n\xff", "a.csv:3: not UTF-8"),
        ("a.csv", b"\nprompt,,,prompt\na,,,b\n", "a.csv:2: the header names the column 'prompt' twice"),
        ("a.json", b'[\n"\xff"]', "a.json:2: not UTF-8"),
    ],
)
def test_unreadable_files(tmp_path, name, content, message):
    """A file of which nothing can be read is an error that says why."""
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path / name, content))


def test_missing_file(tmp_path):
    """A path that leads nowhere is named; so is an empty folder."""
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").mkdir()
    with pytest.raises(DataError, match="no file below it"):
        read_table(tmp_path / "b.jsonl")


def test_hub_dataset_in_a_local_folder(tmp_path, monkeypatch):
    """``datasets`` reads a folder laid out like a hub dataset; an unknown split is an error of ours."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.jsonl", '{"prompt": "a"}\n{"prompt": "b"}')
    table = read_hub(str(tmp_path / "set"), None, "train", None)
    assert table.rows == [(1, {"prompt": "a"}), (2, {"prompt": "b"})]
    with pytest.raises(DataError, match="split tset"):
        read_hub(str(tmp_path / "set"), None, "tset", None)


def test_a_text_file_is_split_at_its_blank_lines(tmp_path):
    """Each text with the line that it begins on; its own line breaks stay."""
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\ntwo\r\n\r\n \r\nthree\n")
    assert read_table(path).rows == [(1, {"text": "one\ntwo"}), (5, {"text": "three"})]


def test_a_folder_is_read_as_one_table(tmp_path):
    """By the files' names, below it too; a .txt file is one text, blank lines and all; other endings are not read."""
    (tmp_path / "sub").mkdir()
    write(tmp_path / "b.txt", "last\n\ntext")
    write(tmp_path / "a.jsonl", '{"text": "first"}\n{"text": "second"}\n')
    write(tmp_path / "sub" / "c.txt", "below")
    write(tmp_path / "LICENSE", "none of it")
    table = read_table(tmp_path)
    assert table.name == str(tmp_path)
    assert table.rows == [
        (number, {"text": text}) for number, text in enumerate(["first", "second", "last\n\ntext", "below"], start=1)
    ]


def test_a_bad_file_of_a_folder_is_named(tmp_path):
    """The others are read."""
    write(tmp_path / "a.txt", b"fine\n\xff")
    write(tmp_path / "b.jsonl", '{"text": \n{"text": "kept"}')
    table = read_table(tmp_path)
    assert [values for _, values in table.rows] == [{"text": "kept"}]
    assert [(bad.file, bad.line) for bad in table.bad_rows] == [
        (str(tmp_path / "a.txt"), 1),
        (str(tmp_path / "b.jsonl"), 1),
    ]
    assert table.bad_rows[0].reason == "line 2: not UTF-8"


def test_a_folder_without_a_readable_file_is_an_error(tmp_path):
    """The message says which endings count."""
    write(tmp_path / "a.pdf", "x")
    with pytest.raises(DataError, match=r"no file below it has one of the endings .*\.txt"):
        read_table(tmp_path)
