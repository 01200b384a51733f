"""A conversation as one text, in the ChatML layout: `<|im_start|>ROLE`, a line break, what was said, `<|im_end|>`.

The template is stored in tokenizer_config.json, where `transformers`, vLLM and llama.cpp look for it; `chat_text` gives
what `apply_chat_template` of `transformers` gives. This module knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minigpt.tokenizer import BPETokenizer

CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")
START, END = CHAT_TOKENS
ROLES = ("system", "user", "assistant")

# Jinja, as `transformers` reads it. A turn is closed by END and a line break; the last line opens the model's own turn.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

Messages = Sequence[Mapping[str, str]]


def _turns(messages: Messages, add_generation_prompt: bool) -> list[tuple[str, bool]]:
    """Each turn as what stands between its special tokens, and whether it is closed. ValueError for a bad message."""
    turns = []
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            raise ValueError(
                f"message {number} is {message!r}; a message is {{'role': ..., 'content': ...}} with the role "
                f"{', '.join(ROLES[:-1])} or {ROLES[-1]}."
            )
        if not isinstance(message.get("content"), str):
            raise ValueError(f"message {number} has the content {message.get('content')!r}; a str is expected.")
        turns.append((f"{message['role']}\n{message['content']}", True))
    return [*turns, ("assistant\n", False)] if add_generation_prompt else turns


def chat_text(messages: Messages, add_generation_prompt: bool = False) -> str:
    """The conversation as the template writes it; with `add_generation_prompt` the assistant's turn is opened.

    Raises:
        ValueError: a message without a known role or without text.
    """
    turns = _turns(messages, add_generation_prompt)
    return "".join(START + turn + (f"{END}\n" if closed else "") for turn, closed in turns)


def encode_chat(tokenizer: BPETokenizer, messages: Messages, add_generation_prompt: bool = False) -> list[int]:
    """Ids of the conversation. Special tokens come from the template alone: one that somebody typed stays mere text.

    Equal to encoding `chat_text` as long as no message contains a special token.

    Raises:
        ValueError: a bad message, or a tokenizer without the two tokens of the template.
    """
    missing = [token for token in CHAT_TOKENS if token not in tokenizer.special_tokens]
    if missing:
        raise ValueError(
            f"the tokenizer has no special token {missing[0]}; train it with "
            "special_tokens=(END_OF_TEXT, *CHAT_TOKENS) to encode conversations."
        )
    start, end = (tokenizer.special_tokens[token] for token in CHAT_TOKENS)
    line_break = tokenizer.encode("\n")
    ids: list[int] = []
    for turn, closed in _turns(messages, add_generation_prompt):
        ids += [start, *tokenizer.encode(turn), *((end, *line_break) if closed else ())]
    return ids
