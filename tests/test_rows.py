"""One tokenisation and one length rule for all algorithms."""

import pytest

from bakeoff.contracts import TaskData, TaskSettings
from bakeoff.errors import Incompatible, ModelError
from bakeoff.rows import Tokenised, blank_id, blocks, pieces, tokenise, tokenise_row

CHAT = [{"role": "user", "content": "hi"}]


def data(train, test=None):
    test = test or [{"id": "t", "prompt": "a"}]
    return TaskData(train, test, frozenset({"prompts"}), "0", "CC0", "here")


def text(tokenizer, ids):
    return tokenizer.decode(ids)


def test_plain_text(tokenizer):
    """The prompt as it is; each completion after it, ended by EOS."""
    row = tokenise_row({"id": "1", "prompt": "we ", "completion": "were", "chosen": "are", "rejected": "is"}, tokenizer)
    assert text(tokenizer, row.prompt_ids) == "we "
    assert {name: text(tokenizer, ids) for name, ids in row.completions.items()} == {
        "completion": "were<eos>",
        "chosen": "are<eos>",
        "rejected": "is<eos>",
    }


@pytest.mark.parametrize("reply", ["yes", [{"role": "assistant", "content": "yes"}]])
def test_conversations_go_through_the_chat_template(reply, tokenizer):
    """The prompt opens the assistant's turn; the reply is what the template writes after it, with one EOS."""
    row = tokenise_row({"id": "1", "prompt": CHAT, "completion": reply}, tokenizer)
    assert row.prompt == "user: hi\nassistant: "
    assert text(tokenizer, row.prompt_ids) == row.prompt
    assert text(tokenizer, row.completions["completion"]) == "yes<eos>"


def test_a_conversation_without_a_template_is_an_error(tokenizer):
    """The message says that the model is no chat model."""
    tokenizer = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<eos>")
    with pytest.raises(Incompatible, match="no chat template"):
        tokenise_row({"id": "1", "prompt": CHAT}, tokenizer)


def test_context_in_training_is_context_in_sampling(tokenizer):
    """Where the tokenizer would join prompt and completion, the prompt keeps its own ids."""

    class Joining:
        """A tokenizer of pairs: "ab" is one token, so "a" + "b" is not what "ab" is."""

        bos_token, eos_token_id, chat_template = None, 0, None

        def __call__(self, text, add_special_tokens=True):
            return {"input_ids": [10 * len(text[i : i + 2]) + ord(text[i]) % 7 for i in range(0, len(text), 2)]}

    joined = tokenise_row({"id": "1", "prompt": "abc", "completion": "de"}, Joining())
    assert joined.prompt_ids == Joining()("abc")["input_ids"]
    assert joined.completions["completion"] == [*Joining()("de")["input_ids"], 0]


def test_a_row_that_is_too_long_is_left_out_and_counted(tokenizer):
    """By prompt or by any completion, in training; held-out completions are not trained on and may be long."""
    rows = [
        {"id": "fits", "prompt": "we", "chosen": "a", "rejected": "b"},
        {"id": "long prompt", "prompt": "w" * 9},
        {"id": "long rejected", "prompt": "we", "chosen": "a", "rejected": "b" * 4},
        {"id": "no prompt", "prompt": ""},
    ]
    settings = TaskSettings(max_prompt_tokens=8, max_new_tokens=4)
    common = tokenise(data(rows, [{"id": "t", "prompt": "a", "completion": "b" * 50}]), tokenizer, settings)
    assert [row.row["id"] for row in common.train] == ["fits"]
    assert [row.row["id"] for row in common.test] == ["t"]
    assert common.left_out == {
        "a prompt over 8 tokens (train)": 1,
        "a completion over 4 tokens (train)": 1,
        "an empty prompt (train)": 1,
    }


def test_a_conversation_that_the_template_refuses_is_left_out(tokenizer, monkeypatch):
    """A template may raise, on a system turn for one: the row is left out and counted; with none left, it is said."""
    refusing = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", refusing + "{{ m.content }}{% endfor %}")
    refused = [{"role": "system", "content": "be kind"}, *CHAT]
    rows = [{"id": "1", "prompt": CHAT}, {"id": "2", "prompt": refused}]
    common = tokenise(data(rows), tokenizer, TaskSettings())
    assert [row.row["id"] for row in common.train] == ["1"]
    assert common.left_out == {"a conversation that the chat template refuses (train)": 1}
    with pytest.raises(Incompatible, match="1 with a conversation that the chat template refuses") as caught:
        tokenise(data(rows[1:]), tokenizer, TaskSettings())
    assert "another model" in caught.value.fix


def test_a_completion_with_its_eos_just_fits(tokenizer):
    """The limit counts EOS, as sampling does."""
    rows = [{"id": "1", "prompt": "a", "completion": "bbb"}, {"id": "2", "prompt": "a", "completion": "bbbb"}]
    common = tokenise(data(rows), tokenizer, TaskSettings(max_new_tokens=4))
    assert [row.row["id"] for row in common.train] == ["1"]


def test_a_split_without_rows_is_an_error(tokenizer):
    """The message says why, and which setting to raise."""
    with pytest.raises(Incompatible, match=r"(?s)no train row is left of 1: 1 with a prompt over 1.*max_prompt_tokens"):
        tokenise(data([{"id": "1", "prompt": "abc"}]), tokenizer, TaskSettings(max_prompt_tokens=1))


def test_a_text_is_kept_whole_and_its_continuation_is_cut(tokenizer):
    """No text is too long: its ids are all there, ended by EOS, and what follows its opening is cut, not left out."""
    row = {"id": "1", "prompt": "we ", "completion": "were three", "text": "we were three"}
    (found,) = tokenise(data([row]), tokenizer, TaskSettings(max_new_tokens=4)).train
    assert text(tokenizer, found.text_ids) == "we were three<eos>"
    assert text(tokenizer, found.completions["completion"]) == "were"


def test_texts_in_pieces():
    """None longer than allowed, none of two texts; a row's further pieces carry its id and their number."""
    rows = [
        Tokenised({"id": "a"}, "", [1], {}, [1, 2, 3, 4, 5]),
        Tokenised({"id": "b"}, "", [1], {}),
        Tokenised({"id": "c"}, "", [1], {}, [6, 7]),
    ]
    assert [(piece["id"], piece["input_ids"]) for piece in pieces(rows, 2)] == [
        ("a", [1, 2]),
        ("a#2", [3, 4]),
        ("a#3", [5]),
        ("c", [6, 7]),
    ]


def test_texts_in_blocks():
    """Full ones, across the ends of texts; too little text for one is one that is shorter."""
    assert blocks([[1, 2, 3], [4], [5, 6, 7]], 3) == [[1, 2, 3], [4, 5, 6]]
    assert blocks([[1, 2], [3]], 9) == [[1, 2, 3]]
    assert blocks([], 9) == []


def test_the_blank(tokenizer):
    """The mask token; else "_", else the unknown token, else nothing that could hide another."""
    vocabulary = {"<eos>": 0, "<mask>": 1, "_": 2, "<unk>": 3}

    class Words:
        def __init__(self, *known):
            own = {token: vocabulary[token] for token in known}
            self.mask_token_id, self.unk_token_id = own.get("<mask>"), own.get("<unk>")
            self.get_vocab = lambda: own

    assert blank_id(Words("<mask>", "_", "<unk>")) == 1
    assert blank_id(Words("_", "<unk>")) == 2
    assert blank_id(Words("<unk>")) == 3
    assert blank_id(tokenizer) == tokenizer.unk_token_id
    with pytest.raises(ModelError, match="no mask token"):
        blank_id(Words("<eos>"))
