"""Code completion, judged without running anything: does what a model writes parse, and is its next line the right one?

A task is a function of a module that the model has not read, cut in its body; the model goes on from there.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from minigpt.generate import generate
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer

LONGEST = 60  # lines of a function that becomes a task


@dataclass(frozen=True)
class CodeTask:
    """A started function: the text `before` it in its module, what is `given` of it, and the `rest` as it was written.

    What is given ends without its line break: `\\n` and the spaces after it are one token in most texts, and a model that
    is shown the line break alone expects an empty line.
    """

    name: str
    before: str
    given: str
    rest: str

    @property
    def indent(self) -> int:
        """Columns before the function's `def`."""
        return len(self.given) - len(self.given.lstrip(" "))


def started_functions(source: str, module: str = "") -> Iterator[CodeTask]:
    """The functions of a module with a body to be completed, each cut after its first statement.

    A docstring is no statement here. A function counts where at least two lines follow the cut; a module that does not
    parse gives none.
    """
    lines = re.findall(r".*\n|.+$", source)  # splitlines would end a line at a form feed too, and Python does not
    for node in ast.walk(_tree(source) or ast.Module([], [])):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        first, cut = _first_line(node), _first_line(body[1]) if len(body) > 1 else node.end_lineno
        if node.end_lineno - cut >= 2 and node.end_lineno - first <= LONGEST:
            before, given, rest = ("".join(lines[a:b]) for a, b in ((0, first), (first, cut), (cut, node.end_lineno)))
            yield CodeTask(f"{module}.{node.name}".lstrip("."), before, given.removesuffix("\n"), f"\n{rest}")


def _first_line(statement: ast.stmt) -> int:
    """Its number from 0, decorators included."""
    return min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))]) - 1


def _tree(source: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an odd escape in a string is nobody's mistake here
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            return None


def end_of_function(task: CodeTask, written: str) -> tuple[str, bool]:
    """What is written up to the first line that is no longer inside the function, and whether there was such a line.

    Without one, the model ran out of room: the last line, which may be a half, is left out.
    """
    lines = written.splitlines(keepends=True)
    for number, line in enumerate(lines[1:], start=1):  # the first still belongs to the last line that was given
        if line.strip() and len(line) - len(line.lstrip(" ")) <= task.indent and not re.match(r"\s*[)\]}]", line):
            return "".join(lines[:number]), True
    return "".join(lines if written.endswith("\n") else lines[:-1]), False


def parses(task: CodeTask, written: str) -> bool:
    """Whether the function, as it was given and then completed, is Python. Nothing written is no completion."""
    completion, _ = end_of_function(task, written)
    inside = "if True:\n" if task.indent else ""  # a string may hold lines that stand further to the left
    return bool(completion.strip()) and _tree(inside + task.given + completion) is not None


def same_next_line(task: CodeTask, written: str) -> bool:
    """Whether the first line that says something is the one that stands there, white space at its ends aside."""
    same_line, _, below = written.partition("\n")
    first, expected = (next((li.strip() for li in t.splitlines() if li.strip()), "") for t in (below, task.rest))
    return not same_line.strip() and first == expected


def complete(
    model: GPT,
    tokenizer: Tokenizer,
    tasks: Sequence[CodeTask],
    max_new_tokens: int = 120,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 32,
    window: int = 512,
) -> list[str]:
    """What the model writes after each task, given as much of the module before it as fits into `window` tokens with it.

    Several tasks are completed at a time. A context shorter than the window is the window. ValueError where that leaves
    nothing for the prompt.
    """
    room = min(window, model.config.context_length) - max_new_tokens
    if room < 1:
        raise ValueError(
            f"max_new_tokens={max_new_tokens} leaves no room for the prompt in {room + max_new_tokens} tokens; ask for fewer."
        )
    written: list[str] = []
    for start in range(0, len(tasks), batch_size):
        prompts = [
            tokenizer.encode(t.before[-20 * room :] + t.given)[-room:] for t in tasks[start : start + batch_size]
        ]
        options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        for prompt, row in zip(prompts, generate(model, prompts, **options)):
            written.append(tokenizer.decode(row[len(prompt) :]))
    return written
