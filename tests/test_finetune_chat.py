import pytest
import torch
from conftest import make_model

from minigpt import BPETokenizer, GPTConfig, TrainConfig, Trainer
from minigpt.chat_template import CHAT_TOKENS, chat_text, encode_chat
from minigpt.finetune import ChatData, add_chat_tokens, add_lora, add_tokens, encode_answers, reply
from minigpt.finetune.batches import Rehearsal
from minigpt.finetune.chat import fit_messages
from minigpt.tokenizer import END_OF_TEXT, decode_pieces

TEXT = ["hello, how are you today? fine and you? system assistant user\n" * 5]
TOKENIZER = BPETokenizer.train(TEXT, vocab_size=300, special_tokens=(END_OF_TEXT, *CHAT_TOKENS))
SHAPE = GPTConfig.llama(vocab_size=TOKENIZER.vocab_size, n_layer=1, n_head=2, n_embd=16, context_length=64)


def _talk(*contents):
    return [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]


def test_the_loss_is_on_the_answers_and_their_end_alone():
    messages = [{"role": "system", "content": "you"}, *_talk("hello", "fine and you?", "fine", "today?")]
    ids, targets = encode_answers(TOKENIZER, messages)
    whole = encode_chat(TOKENIZER, messages)
    assert ids == whole[:-1] and len(targets) == len(ids)
    assert all(target in (-100, after) for target, after in zip(targets, whole[1:]))
    learned = TOKENIZER.decode([target for target in targets if target != -100])
    assert learned == "fine and you?<|im_end|>today?<|im_end|>"


def test_the_answer_begins_where_the_models_own_turn_is_opened():
    messages = _talk("hello", " fine \n")
    ids, targets = encode_answers(TOKENIZER, messages)
    first = next(at for at, target in enumerate(targets) if target != -100)
    assert ids[: first + 1] == encode_chat(TOKENIZER, messages[:1], add_generation_prompt=True)
    assert TOKENIZER.decode([t for t in targets if t != -100]) == "fine<|im_end|>"


def test_what_transformers_masks_as_the_assistants_words_is_masked_here():
    from transformers import PreTrainedTokenizerFast

    template = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|im_start|>assistant\\n' }}"
        "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}{% else %}"
        "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    )
    theirs = PreTrainedTokenizerFast(tokenizer_object=TOKENIZER._tokenizer, chat_template=template)
    messages = _talk("hello", "fine", "and you?", "fine and you?")
    given = theirs.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    ids, targets = encode_answers(TOKENIZER, messages)
    assert given["input_ids"][:-1] == ids
    assert [t != -100 for t in targets] == [bool(m) for m in given["assistant_masks"][1:]]


def test_a_long_conversation_becomes_shorter_ones_and_no_answer_is_lost():
    messages = _talk(*[f"hello {i} {'how are you' * (i % 3)}" for i in range(20)])
    data = ChatData(TOKENIZER, [messages], context_length=64)
    assert len(data) > 2 and max(data.lengths) <= 64
    learned = [TOKENIZER.decode([t for t in targets if t != -100]) for _, targets in data.rows]
    assert "".join(learned) == "".join(f"{m['content'].strip()}<|im_end|>" for m in messages[1::2])
    assert all(TOKENIZER.decode(ids).startswith("<|im_start|>user\n") for ids, _ in data.rows)


def test_a_single_exchange_that_is_too_long_loses_its_end_and_that_is_said():
    with pytest.warns(UserWarning, match=r"1 of 2 pieces .* their ends are cut off"):
        data = ChatData(TOKENIZER, [_talk("hello", "fine" * 60), _talk("hello", "fine")], context_length=40)
    assert sorted(data.lengths)[-1] == 40


def test_batches_are_filled_with_targets_that_do_not_count():
    data = ChatData(TOKENIZER, [_talk("hello", "fine"), _talk("hello", "fine and you, how are you today?")], 64)
    idx, targets = data.batch(0, 2)
    assert idx.shape == targets.shape
    for row, (ids, its_targets) in enumerate(sorted(data.rows, key=lambda r: len(r[0]))):
        order = sorted(range(2), key=lambda r: int((targets[r] != -100).sum()))
        assert targets[order[row], : len(ids)].tolist() == its_targets
        assert (targets[order[row], len(ids) :] == -100).all()


@pytest.mark.parametrize(
    ("conversations", "words"),
    [
        ([], "none of the 0 conversations"),
        ([_talk("hello")], "none of the 1 conversations has an answer"),
        ([[{"role": "robot", "content": "hello"}]], "message 0 is"),
        ([[{"role": "user"}]], "content None"),
    ],
)
def test_conversations_without_an_answer_or_with_a_bad_message_are_refused(conversations, words):
    with pytest.raises(ValueError, match=words):
        ChatData(TOKENIZER, conversations, 64)


def test_a_tokenizer_without_chat_tokens_gets_them_and_the_model_hardly_changes():
    plain = BPETokenizer.train(TEXT, vocab_size=290)
    for tied in (True, False):
        model = make_model(SHAPE.replace(vocab_size=plain.vocab_size, tie_embedding=tied))
        larger, wider = add_chat_tokens(model, plain)
        assert wider.vocab_size == plain.vocab_size + 2 and larger.config.vocab_size == wider.vocab_size
        ids = plain.encode("hello, how are you?")
        assert wider.encode("hello, how are you?") == ids
        idx = torch.tensor([ids])
        torch.testing.assert_close(larger(idx)[0][..., : plain.vocab_size], model(idx)[0])
        for table in ("token_embedding", "head"):
            old, new = (getattr(m, table).weight for m in (model, larger))
            torch.testing.assert_close(new[-2], old.mean(dim=0))  # <|im_start|>, which no model is to write
            assert torch.equal(new[-1], old[plain.encode("\n")[0]])
        mean = add_tokens(model, plain, CHAT_TOKENS)[0].token_embedding.weight[-2:]
        torch.testing.assert_close(mean, model.token_embedding.weight.mean(dim=0).expand(2, -1))
        assert add_chat_tokens(larger, wider) == (larger, wider)
        assert encode_chat(wider, _talk("hello"))[0] == plain.vocab_size
    with pytest.raises(ValueError, match=r"<\|im_end\|> is in the vocabulary already"):
        add_tokens(larger, wider, ["<|im_end|>"])
    with pytest.raises(ValueError, match="like='' has no token"):
        add_tokens(larger, wider, ["<|new|>"], like="")
    with pytest.raises(ValueError, match="no special token"):
        encode_answers(plain, _talk("hello", "fine"))


def test_a_table_with_more_rows_than_tokens_gets_the_new_rows_where_their_ids_are():
    plain = BPETokenizer.train(TEXT, vocab_size=290)
    for spare in (1, 10):
        model = make_model(SHAPE.replace(vocab_size=plain.vocab_size + spare))
        larger, wider = add_chat_tokens(model, plain)
        row = larger.token_embedding.weight[wider.special_tokens["<|im_end|>"]]
        assert torch.equal(row, model.token_embedding.weight[plain.encode("\n")[0]])
        assert len(larger.token_embedding.weight) == wider.vocab_size
    with pytest.raises(ValueError, match="they do not belong together"):
        add_chat_tokens(make_model(SHAPE.replace(vocab_size=100)), plain)
    add_lora(model, rank=1)
    with pytest.raises(ValueError, match="has adapters"):
        add_chat_tokens(model, plain)


def test_a_system_message_in_the_middle_begins_a_new_piece():
    messages = [*_talk("hello", "fine"), {"role": "system", "content": "you"}, *_talk("how", "today?")]
    data = ChatData(TOKENIZER, [messages], context_length=30)
    learned = [TOKENIZER.decode([t for t in targets if t != -100]) for _, targets in data.rows]
    assert learned == ["fine<|im_end|>", "today?<|im_end|>"]


def test_an_answer_beyond_the_context_is_said_to_be_cut_off():
    with pytest.warns(UserWarning, match="ends are cut off"), pytest.raises(ValueError, match="within the context"):
        ChatData(TOKENIZER, [_talk("hello " * 20, "fine")], context_length=16)


@pytest.mark.parametrize("messages", [["hello"], "hello", [{"role": "user"}]])
def test_a_reply_to_what_is_no_conversation_is_refused(messages):
    with pytest.raises(ValueError, match="message 0"):
        next(reply(make_model(SHAPE), TOKENIZER, messages))


def test_a_reply_ends_at_stop_tokens_of_ones_own_too():
    first = next(reply(make_model(SHAPE), TOKENIZER, _talk("hello"), temperature=0))
    stop = tuple(TOKENIZER.encode(first))
    assert "".join(reply(make_model(SHAPE), TOKENIZER, _talk("hello"), temperature=0, stop_tokens=stop)) == ""
    spaced = fit_messages(TOKENIZER, _talk("  hello \n"), 60)
    assert spaced == fit_messages(TOKENIZER, _talk("hello"), 60)


def test_it_learns_to_answer_and_to_stop():
    torch.manual_seed(0)
    data = ChatData(TOKENIZER, [_talk("hello", "fine and you?"), _talk("how are you?", "fine")] * 4, 64)
    model = make_model(SHAPE)
    settings = TrainConfig(max_steps=60, batch_size=8, learning_rate=1e-2, warmup_steps=5, precision="fp32")
    Trainer(model, data, None, settings, callbacks=[]).fit()
    pieces = list(reply(model, TOKENIZER, _talk("hello"), temperature=0, max_new_tokens=30))
    assert "".join(pieces) == "fine and you?" and len(pieces) > 1


def test_the_oldest_messages_go_first_and_the_system_message_stays():
    system = {"role": "system", "content": "fine"}
    messages = [system, *_talk("hello", "how", "are", "you", "today?")]
    whole = encode_chat(TOKENIZER, messages, add_generation_prompt=True)
    assert fit_messages(TOKENIZER, messages, len(whole)) == whole
    shorter = TOKENIZER.decode(fit_messages(TOKENIZER, messages, len(whole) - 1))
    assert shorter == chat_text([system, *messages[2:]], add_generation_prompt=True)
    with pytest.raises(ValueError, match=r"the last message takes \d+ tokens, and 10 are left"):
        fit_messages(TOKENIZER, messages, 10)


def test_a_character_of_several_tokens_is_written_when_it_is_whole():
    ids = TOKENIZER.encode("a \u00e9 \U0001f600 b")
    pieces = list(decode_pieces(TOKENIZER, ids))
    assert "".join(pieces) == "a \u00e9 \U0001f600 b" and all("\ufffd" not in piece for piece in pieces)
    assert "".join(decode_pieces(TOKENIZER, ids[:4])) == TOKENIZER.decode(ids[:4])


def test_rehearsal_brings_an_old_batch_every_so_often_and_skips_none_of_the_new():
    class Numbered:
        def __init__(self, name):
            self.name = name

        def batch(self, step, batch_size):
            return self.name, step

    mixed = Rehearsal(Numbered("new"), Numbered("old"), share=0.25)
    batches = [mixed.batch(step, 1) for step in range(8)]
    assert [step for name, step in batches if name == "old"] == [0, 1]
    assert [step for name, step in batches if name == "new"] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="share=1 must lie between 0 and 1"):
        Rehearsal(Numbered("new"), Numbered("old"), share=1)
