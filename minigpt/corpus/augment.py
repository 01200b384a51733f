"""Changed copies of texts that keep their label: synonyms, reordered sentences, swapped and deleted words, typos, noise.

The kinds are those of EDA (Wei & Zou 2019) and what a keyboard adds. A copy is a pure function of the seed, the text and
its place among the texts, on every version of Python. What turns a sentence round (not, never, but, too) stays where it
is. The words that may stand for each other are those of `minigpt.corpus.synonyms`; a text in another language than English
has none there. This module knows nothing of models.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence

import pyarrow
from datasets import Dataset, DatasetInfo, Features, Value

from minigpt.config import nearest
from minigpt.corpus.defects import Chance, mistyped
from minigpt.corpus.synonyms import FUNCTION_WORDS, GRAMMAR, SHIFTERS, WORDS, Lexicon, lexicon

LETTER = r"[^\s!-/:-@\[-`{-~¡-¿‐-‧]"  # spelled out: \w knows more letters in each version of Python
WORD = re.compile(rf"({LETTER}+(?:['’-]{LETTER}+)*)")
SENTENCE = re.compile(r"""((?<=[.!?])["'”’)\]]*\s+(?=["'“‘(\[]?[A-Z])|\n[ \t]*\n\s*|:\n)""")
NO_END = re.compile(r"(?:^|[\s(])(?:Mr|Mrs|Ms|Dr|St|Jr|Sr|[Vv]s|etc|[A-Z](?:\.[A-Z])*)\.$")
BEGINS = re.compile(r"[.!?\n]\W*$")  # a gap, before the first word of a sentence
LEANS_BACK = re.compile(  # a sentence that answers the one before it, and stays behind it
    r"\W*(?:But|Yet|And|Or|So|Then|Nor|Even|Of course|That|This|These|Those|Because|Which|As|In fact)\b"
    r"|[^.!?]*\b(?:[Tt]hough|[Aa]lthough|[Hh]owever|[Ss]till|[Aa]lso|[Ii]nstead|[Tt]oo|[Nn]onetheless|[Nn]evertheless)\b"
)
NEAR = 12  # characters before a gap that say whether a sentence ends there
SIGNS = "abcdefghijklmnopqrstuvwxyz0123456789#$%&*+-/<=>@^_~"
MASK = (1 << 64) - 1


class Draw(Chance):
    """A `Chance` that begins anew for each text at little cost (a linear congruential generator of 64 bits, Knuth 3.3.4)."""

    def begin(self, seed: int, *numbers: int) -> None:
        """Begin anew from a seed and some numbers, which splitmix64 (Steele et al. 2014) stirs."""
        self._state = seed & MASK
        for number in numbers:
            x = (self._state + (number + 1) * 0x9E3779B97F4A7C15) & MASK
            x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
            x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
            self._state = x ^ (x >> 31)

    def random(self) -> float:
        """The next number from 0 up to, not including, 1."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & MASK
        return (self._state >> 11) * 2.0**-53

    def some(self, places: list[int], wanted: float) -> list[int]:
        """So many of the places on average, each as likely as any other, in random order; all where there are fewer."""
        n = min(len(places), int(wanted + self.random()))
        for i in range(n):
            j = i + self.below(len(places) - i)
            places[i], places[j] = places[j], places[i]
        return places[:n]


def begun(seed: int, kind: str, *numbers: int) -> Draw:
    """A `Draw` that begins from a seed, a kind of change and some numbers, such as a text's place among the texts."""
    draw = Draw()
    draw.begin(seed, zlib.crc32(kind.encode()), *numbers)
    return draw


class _Judged(dict):
    """What a rule says of each word, asked once for each."""

    def __init__(self, rule: Callable[[str], bool]):
        super().__init__()
        self.rule = rule

    def __missing__(self, word: str) -> bool:
        self[word] = self.rule(word)
        return self[word]

    def places(self, pieces: list[str]) -> list[int]:
        """Where the words are that the rule says yes to; words stand at odd places."""
        return [2 * i + 1 for i, word in enumerate(pieces[1::2]) if self[word]]


def turns(word: str) -> bool:
    """Whether a word negates others, or weakens them: not, can't, never, hardly, but, too."""
    small = word.lower().replace("’", "'")
    return small in SHIFTERS or small.endswith("n't")


def _typed(word: str) -> bool:
    return len(word) > 3 and word.isascii() and word.isalpha() and not turns(word)


def _synonyms(known: Lexicon) -> Callable[[str, float, Draw], str]:
    forms = known.forms
    judged = _Judged(
        lambda word: word in forms or (word.istitle() and word.lower() in forms and word.lower() not in known.names)
    )

    def change(text: str, rate: float, draw: Draw) -> str:
        pieces = WORD.split(text)
        options = {i: fitting(pieces, i, *forms[pieces[i].lower()], known) for i in judged.places(pieces)}
        for i in draw.some([i for i in options if options[i]], rate * (len(pieces) // 2)):
            other = draw.pick(options[i])
            pieces[i] = other.capitalize() if pieces[i][0].isupper() else other
        return "".join(pieces)

    return change


def fitting(pieces: Sequence[str], i: int, kind: str, others: Sequence[str], known: Lexicon) -> list[str]:
    """Which of the others may stand for the word at place i, by its neighbours; none where it is hardly a `kind` there.

    `pieces` are gaps (even places) and words (odd places) of a text in turn. A word with a capital must begin a sentence.
    """
    word, gap, after = pieces[i].lower(), pieces[i - 1], pieces[i + 1]
    last = pieces[i - 2].lower() if i > 1 and not gap.strip() else ""
    following = pieces[i + 2].lower() if i + 2 < len(pieces) and not after.strip() else ""
    is_name = pieces[i][0].isupper() and not (i == 1 or BEGINS.search(gap))
    is_part = gap[-1:] in ("'", "’", "-") or after[:1] in ("'", "’", "-")
    is_compound = f"{last} {word}" in known.compounds or f"{word} {following}" in known.compounds
    no_noun = kind == "noun" and last in WORDS["before_a_verb"]
    no_verb = kind == "verb" and (last in WORDS["before_a_noun"] or following in WORDS["after_a_verb"])
    if is_name or is_part or is_compound or no_noun or no_verb:
        return []
    return [other for other in others if last not in ("a", "an") or (other[0] in "aeiou") == (last == "an")]


def _reorder(text: str, rate: float, draw: Draw) -> str:
    parts = SENTENCE.split(text)  # sentences at even places, what is between them at odd places
    pieces = parts[:1]
    for gap, part in zip(parts[1::2], parts[2::2]):
        if gap.isspace() and "\n\n" not in gap and (NO_END.search(pieces[-1][-NEAR:]) or LEANS_BACK.match(part)):
            pieces[-1] += gap + part
        else:
            pieces += [gap, part]
    run, runs = [], []
    for i in range(0, len(pieces), 2):  # the sentences of one paragraph
        ends = re.search(r"""[.!?]["'”’)\]]*$""", pieces[i])
        run += [i] if ends else []
        if i + 1 == len(pieces) or not ends or re.search(r"\n\s*\n|:", pieces[i + 1]):
            runs, run = [*runs, run], []
    for run in runs:
        pairs = int(rate * len(run) / 2 + draw.random())
        chosen = sorted(draw.some(run, 2 * pairs)) if pairs else []
        turned = [pieces[i] for i in chosen[1:] + chosen[:1]]
        for i, sentence in zip(chosen, turned):
            pieces[i] = sentence
    return "".join(pieces)


STAYS = _Judged(turns)


def _swap(text: str, rate: float, draw: Draw) -> str:
    pieces = WORD.split(text)
    pairs = range(1 + 2 * draw.below(2), len(pieces) - 2, 4)
    places = [i for i in pairs if pieces[i + 1] == " " and not (STAYS[pieces[i]] or STAYS[pieces[i + 2]])]
    for i in draw.some(places, rate * (len(pieces) // 2) / 2):
        first, second = pieces[i], pieces[i + 2]
        if first.istitle() and first != "I" and first.lower() in FUNCTION_WORDS and second.islower():
            first, second = first.lower(), second.capitalize()
        pieces[i], pieces[i + 2] = second, first
    return "".join(pieces)


GOES = _Judged(lambda word: word.lower() in GRAMMAR)


def _delete(text: str, rate: float, draw: Draw) -> str:
    pieces = WORD.split(text)
    n = len(pieces) // 2
    between = (i for i in GOES.places(pieces) if pieces[i + 1][:1] == " " and (i == 1 or pieces[i - 1][-1:].isspace()))
    for i in draw.some(list(between), rate * n)[: n - 1]:
        pieces[i], pieces[i + 1] = "", pieces[i + 1][1:]
    return "".join(pieces)


TYPED = _Judged(_typed)


def _typos(text: str, rate: float, draw: Draw) -> str:
    pieces = WORD.split(text)
    for i in draw.some(TYPED.places(pieces), rate * (len(pieces) // 2)):
        pieces[i] = mistyped(pieces[i], draw)
    return "".join(pieces)


NOISY = _Judged(lambda word: not turns(word))


def _noise(text: str, rate: float, draw: Draw) -> str:
    pieces = WORD.split(text)
    for i in draw.some(NOISY.places(pieces), rate * (len(pieces) // 2)):
        word, at = pieces[i], draw.below(len(pieces[i]))
        sign = draw.pick(SIGNS.replace(word[at], ""))
        pieces[i] = word[:at] + sign + word[at + draw.below(2) :]
    return "".join(pieces)


CHANGES: dict[str, Callable[[str, float, Draw], str]] = {
    "reorder": _reorder, "swap": _swap, "delete": _delete, "typos": _typos, "noise": _noise,
}  # fmt: skip
KINDS = ("synonyms", *CHANGES)


def augment(
    texts: Sequence[str], kind: str, rate: float = 0.1, seed: int = 0, known: Lexicon | None = None
) -> list[str]:
    """One changed copy of each text, which should say what the original says.

    Args:
        kind: one of KINDS. synonyms: a word that means the same, in the same form. reorder: sentences in another order,
            within a paragraph. swap: two neighbouring words. delete: words of grammar go (the, of, is), as
            what is left says the same; one word always stays. typos: a slip
            of the keyboard in a word of four letters or more. noise: a random sign in a word, or in place of a letter.
        rate: the share of a text's words that change; of its sentences that move, for reorder. A text where fewer can
            change, such as one with few synonyms, changes less; 0 changes nothing.
        known: words that may stand for each other; by default those of WordNet. Only synonyms asks for them.

    Returns:
        As many texts, in the same order. White space, line breaks and punctuation stay, but for the blank behind
        a deleted word. Words that turn others round (`turns`) are never touched, and no name.

    Raises:
        ValueError: an unknown kind (the nearest is suggested), a rate outside 0 to 1, a text that is none, or one in place of
            several.
        FetchError: WordNet is needed, is not in the cache, and cannot be fetched.
    """
    if isinstance(texts, str):
        raise ValueError("texts is one str; put it into a list: [text].")
    wrong = next((number for number, text in enumerate(texts) if not isinstance(text, str)), None)
    if wrong is not None:
        raise ValueError(f"text {wrong} is {texts[wrong]!r}, and a text is a str; leave out rows without one.")
    if kind not in KINDS:
        raise ValueError(f"there is no kind {kind!r}.{nearest(kind, list(KINDS))}")
    if not 0 <= rate <= 1:
        raise ValueError(f"rate={rate} must be a share of the words, from 0 to 1.")
    change = CHANGES[kind] if kind in CHANGES else _synonyms(known or lexicon())
    if rate == 0:
        return list(texts)
    draw, number = Draw(), zlib.crc32(kind.encode())
    copies = []
    for position, text in enumerate(texts):
        draw.begin(seed, number, position)
        copies.append(change(text, rate, draw))
    return copies


def augmented(
    dataset: Dataset, kind: str, copies: int = 1, rate: float = 0.1, seed: int = 0, known: Lexicon | None = None
) -> Dataset:
    """The rows of a data set and, behind them, changed copies; every column is kept, and so is the label.

    `group` is the number of the original row: rows of one group belong into one fold, or a model is tested on what it was
    trained on. `copy` is 0 for an original and 1 and so on for its copies. Other arguments and errors as `augment`.

    Raises:
        ValueError: no column `text`, a column `group` or `copy` that is there already, or copies below 1.
    """
    taken = {"group", "copy"} & set(dataset.column_names)
    if "text" not in dataset.column_names or taken:
        wrong = f"has a column {min(taken)!r} already; rename it" if taken else "has no column 'text'; name one so"
        raise ValueError(f"the data set {wrong}, with dataset.rename_column(...).")
    if copies < 1:
        raise ValueError(f"copies={copies} makes nothing; use 1 or more.")
    table = dataset.with_format("arrow")[:].replace_schema_metadata(None)
    texts, at = dataset["text"][:], table.column_names.index("text")
    parts = []
    for copy in range(copies + 1):
        changed = augment(texts, kind, rate, (seed + (copy - 1) * 0x5851F42D4C957F2D) & MASK, known) if copy else texts
        part = table.set_column(at, "text", pyarrow.array(changed, table.schema.field("text").type))
        part = part.append_column("group", pyarrow.array(range(len(texts)), pyarrow.int64()))
        parts.append(part.append_column("copy", pyarrow.array([copy] * len(texts), pyarrow.int64())))
    features = Features({**dataset.features, "group": Value("int64"), "copy": Value("int64")})
    return Dataset(pyarrow.concat_tables(parts), info=DatasetInfo(features=features))
