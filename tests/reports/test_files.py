"""Visible escapes, clipping, file names and atomic writes."""

import pytest
from bakeoff.reports.files import clip, slug, visible, write_atomic


@pytest.mark.parametrize(
    ("hidden", "shown"),
    [
        ("a\x00b", "a\\x00b"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202egnp", "\\u202egnp"),
        ("a\u200bb", "a\\u200bb"),
        ("\u2028", "\\u2028"),
        ("\ufeff", "\\ufeff"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_hidden_characters_are_written_out(hidden, shown):
    """Control, bidi, zero-width, separator, surrogate, tag and byte-order characters are shown as escapes."""
    assert visible(hidden) == shown


def test_ordinary_text_stays():
    """Newlines, tabs, accents, other scripts and emoji are left as they are."""
    text = "naïve\n\tтекст 漢字 עברית 🙂 – “quoted”"
    assert visible(text) == text


def test_clip_says_how_much_it_cut():
    """A clipped text ends with the number of characters that are missing."""
    assert clip("abc", 3) == "abc"
    assert clip("x" * 1500, 200) == "x" * 200 + " … (1,300 more characters)"


def test_slug_is_a_safe_file_name():
    """Nothing of a label can leave the folder or need quoting."""
    assert slug("../Smol LM2!", "6tf") == "smol-lm2-6tf"
    assert slug("漢字") == "x"


def test_writes_leave_one_file_with_the_new_content(tmp_path):
    """The folder is made, the old file replaced, and no temporary file stays."""
    path = tmp_path / "a" / "b.txt"
    write_atomic(path, "old")
    assert write_atomic(path, "new \ud800") == path
    assert path.read_text() == "new \\ud800"
    assert [file.name for file in path.parent.iterdir()] == ["b.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    """When the rename cannot happen, a reader still finds the old content."""
    path = write_atomic(tmp_path / "b.txt", "old")

    def refuse(self, target):
        raise OSError("disk on fire")

    monkeypatch.setattr(type(path), "replace", refuse)
    with pytest.raises(OSError, match="fire"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["b.txt"]
