"""The command `minigpt chat`: a conversation with a fine-tuned model in the terminal, as long as one likes."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minigpt.chat_template import CHAT_TOKENS
from minigpt.checkpoint import load_checkpoint
from minigpt.cli.train import add_field
from minigpt.config import SampleConfig

HOW = "Type a message. /reset begins anew, /quit or Ctrl-D leaves, Ctrl-C stops an answer."
OPTIONS = {"temperature": float, "max_new_tokens": int, "seed": int}


def add_chat(commands: Any) -> None:
    """The command `minigpt chat`."""
    chat = commands.add_parser("chat", help="talk with a fine-tuned model", argument_default=argparse.SUPPRESS)
    chat.add_argument("folder", type=Path, help="a checkpoint that was fine-tuned on conversations")
    for name, kind in OPTIONS.items():
        add_field(chat, SampleConfig, name, kind)
    chat.add_argument("--system", metavar="TEXT", default="", help="what the model is told before the conversation")
    chat.set_defaults(run=_chat)


def _chat(options: argparse.Namespace) -> int:
    from minigpt.finetune import reply

    fields = {name: value for name, value in vars(options).items() if name in OPTIONS}
    SampleConfig.make(**fields)  # a wrong one is told before anything is typed
    model, tokenizer = load_checkpoint(options.folder)
    if not set(CHAT_TOKENS) <= set(getattr(tokenizer, "special_tokens", ())):
        raise ValueError(
            f"the tokenizer in {options.folder} has no {CHAT_TOKENS[0]}, so its model never learned to take turns: choose "
            f"a checkpoint that was fine-tuned on conversations, or let this one go on with a text: minigpt generate "
            f"{options.folder}"
        )
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # arrow keys and earlier lines at the prompt; Windows has its own

    start = [{"role": "system", "content": options.system}] if options.system else []
    messages = start
    print(HOW)
    while (line := _line()) != "/quit":
        if line == "/reset":
            messages = start
        elif line:
            asked = [*messages, {"role": "user", "content": line}]
            try:
                answer = _show(reply(model, tokenizer, asked, **fields))
            except ValueError as error:  # a message longer than the context: the conversation goes on without it
                print(f"minigpt: {error}", file=sys.stderr)
                continue
            if answer:
                messages = [*asked, {"role": "assistant", "content": answer}]
    return 0


def _line() -> str:
    """What was typed; /quit at the end of the input, and when Ctrl-C comes at the prompt."""
    try:
        return input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return "/quit"


def _show(pieces: Iterator[str]) -> str:
    """Print an answer as it is written, and give it back: all of it, or what there was when Ctrl-C stopped it."""
    answer = ""
    try:
        for piece in pieces:
            answer += piece
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        print(" [stopped]", end="")
    print()
    return answer
