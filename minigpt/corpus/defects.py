"""One function for each kind of defect that text from the web has, and the seeded chance that they share.

A kind that spoils places in a document (mojibake, tags, a typing error) yields (start, end, dirty): where the clean text is
spoilt, and what stands there then. A kind of whole documents (copies, keyboard mash, another language) makes one out of
a clean document. The sentences are our own, in planted.toml, and the private data are invented.
"""

from __future__ import annotations

import functools
import importlib.resources
import random
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ftfy.bad_codecs  # noqa: F401 registers sloppy-windows-1252, which has a character for every byte

Place = tuple[int, int, str]

EVERY = 1500  # characters for each place of a kind, in a document that has the kind
WORD = re.compile(r"(?<![\w'’\[-])[A-Za-z]{4,}(?![\w'’\]-])")
KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEAR = {key: row[i - 1 if i else 1] for row in KEYS for i, key in enumerate(row)}
UNSEEN = "\x00\x02\x07\x08\x1b\x7f\x0e\xad\u200b\u200e\u2060\ufeff"
SYMBOLS = "#$%&*+-/<=>@^_{|}~°§¤¬"


@functools.cache
def sentences() -> dict[str, dict[str, list[str]]]:
    """What stands in planted.toml."""
    content = importlib.resources.files("minigpt.corpus").joinpath("planted.toml").read_text(encoding="utf-8")
    return tomllib.loads(content)


class Chance(random.Random):
    """Seeded choices that are the same in every version of Python: all of them are made of `random()`."""

    def below(self, n: int) -> int:
        """A whole number from 0 up to, not including, n."""
        return int(self.random() * n)

    def pick(self, choices: Sequence[Any]) -> Any:
        """One of the choices, each as likely as any other."""
        return choices[self.below(len(choices))]

    def digits(self, n: int) -> str:
        """A string of n decimal digits."""
        return "".join(str(self.below(10)) for _ in range(n))

    def spots(self, pattern: re.Pattern, text: str) -> list[re.Match]:
        """Matches of a pattern, about one for every EVERY characters, in random order."""
        found = list(pattern.finditer(text))
        wanted = min(len(found), 1 + len(text) // EVERY)
        return [found.pop(self.below(len(found))) for _ in range(wanted)]


# Places in a document.


def mojibake(text: str, chance: Chance) -> Iterator[Place]:
    """Every line beyond ASCII, encoded as UTF-8 and read as Windows-1252 or Latin-1; one in ten documents twice."""
    encoding = "latin-1" if chance.random() < 0.25 else "sloppy-windows-1252"
    for line in re.finditer(r"[^\n]+", text):
        if not line[0].isascii():
            dirty = line[0].encode().decode(encoding)
            yield (*line.span(), dirty.encode().decode(encoding) if chance.random() < 0.1 else dirty)


def tags(text: str, chance: Chance) -> Iterator[Place]:
    """HTML tags around words, and before lines."""
    for word in chance.spots(WORD, text):
        name = chance.pick(["b", "i", "em", "strong", 'span class="s1"', 'a href="/p?id=7"', "font color=red"])
        yield (*word.span(), f"<{name}>{word[0]}</{name.split()[0]}>")
    for line in chance.spots(re.compile(r"(?<=\n)(?=\w)"), text):
        yield (*line.span(), chance.pick(["<p>", "<br/>", "<!-- next -->", "<div class='row'>", "</div>", "<hr>"]))


def entities(text: str, chance: Chance) -> Iterator[Place]:
    """Signs that HTML writes as entities."""
    forms = {"&": ["&amp;", "&#38;"], "<": ["&lt;"], ">": ["&gt;"], '"': ["&quot;", "&#34;"], "'": ["&#39;", "&#x27;"]}
    for sign in chance.spots(re.compile(r"""[&"']"""), text):
        yield (*sign.span(), chance.pick(forms[sign[0]]))


def wiki(text: str, chance: Chance) -> Iterator[Place]:
    """Links, bold words, footnotes and templates of a wiki."""
    about = sentences()["wiki"]
    for number, word in enumerate(chance.spots(WORD, text)):
        target, after = chance.pick(about["targets"]), chance.pick(about["after"])
        forms = [f"[[{target}|{word[0]}]]", f"[[{word[0]}]]", f"'''{word[0]}'''", f"{word[0]}{after}", f"''{word[0]}''"]
        yield (*word.span(), chance.pick(forms[: 2 if number == 0 else 5]))  # a page has at least one link
    for line in chance.spots(re.compile(r"(?<=\n)(?=\w)"), text)[:1]:
        yield (*line.span(), chance.pick(about["lines"]) + "\n")


def boilerplate(text: str, chance: Chance) -> Iterator[Place]:
    """Lines of a web page that belong to no text: at the beginning and between the others."""
    about = sentences()["boilerplate"]
    places = chance.spots(re.compile(r"(?<=\n)(?=\w)"), text)[:2]
    for start in [0] * (chance.random() < 0.5) + [line.start() for line in places]:
        known = {"year": 1995 + chance.below(30), "day": 1 + chance.below(28)}
        known |= {"site": chance.pick(about["site"]), "month": chance.pick(about["month"])}
        yield start, start, chance.pick(about["lines"]).format(**known) + "\n"


def unseen(text: str, chance: Chance) -> Iterator[Place]:
    """Control characters and characters without width, within words."""
    for word in chance.spots(WORD, text):
        at = word.start() + 1 + chance.below(len(word[0]) - 1)
        yield at, at, chance.pick(UNSEEN)


def whitespace(text: str, chance: Chance) -> Iterator[Place]:
    """Several blanks, or another kind of blank, for one; blanks at a line's end; empty lines."""
    for space in chance.spots(re.compile(r"(?<=\w) (?=\w)|(?<=\w)\n\n?(?=\w)"), text):
        forms = {
            " ": ["  ", "\t", "\xa0", "    ", "\u2003"],
            "\n": [" \n", "\t\n"],
            "\n\n": ["\n\n\n\n", "\n \n", "  \n\n"],
        }
        yield (*space.span(), chance.pick(forms[space[0]]))


def hyphenation(text: str, chance: Chance) -> Iterator[Place]:
    """The last word of a line, broken: what stood before the line break now stands behind it."""
    for word in chance.spots(re.compile(r"(?<![\w'’-])[a-z]{7,}\n(?=\w)"), text):
        at = word.start() + 3 + chance.below(len(word[0]) - 6)
        yield at, word.end(), f"-\n{text[at : word.end() - 1]} "


def private(kind: str, text: str, chance: Chance) -> Iterator[Place]:
    """An invented value wherever the clean text has the mask of its kind."""
    for mask in re.finditer(f"<{kind.upper()}>", text):
        yield (*mask.span(), INVENTED[kind](chance))


def mistyped(word: str, chance: Chance) -> str:
    """An English word of at least three letters with two of them swapped, one left out, doubled, or its neighbour's key hit."""
    i, form = 1 + chance.below(len(word) - 2), chance.below(4)
    if form < 2:
        return word[:i] + word[i + 1 :] if form == 0 else word[: i + 1] + word[i:]
    swapped = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    if form == 3 and swapped != word:
        return swapped
    return word[:i] + NEAR[word[i].lower()] + word[i + 1 :]


def typos(text: str, chance: Chance) -> Iterator[Place]:
    """Two letters swapped, one left out, doubled, or replaced by a neighbour on the keyboard."""
    for word in chance.spots(WORD, text):
        yield (*word.span(), mistyped(word[0], chance))


def elongation(text: str, chance: Chance) -> Iterator[Place]:
    """A vowel near the end of a word, drawn out."""
    for vowel in chance.spots(re.compile(r"[aeou](?=[a-z]{0,2}\b)(?<=\w\w)"), text):
        yield (*vowel.span(), vowel[0] * (3 + chance.below(4)))


def truncation(text: str, chance: Chance) -> Iterator[Place]:
    """The end of the document is missing, from the middle of a word on."""
    words = [word for word in WORD.finditer(text) if word.start() > 0.6 * len(text)]
    if words:
        yield chance.pick(words).start() + 2, len(text), ""


# Values that look real and belong to nobody.


def email(chance: Chance) -> str:
    """An address in one of the domains that exist for examples (RFC 2606)."""
    about = sentences()["private"]
    return f"{chance.pick(about['first'])}{chance.below(90) or ''}@{chance.pick(about['domain'])}"


def phone(chance: Chance) -> str:
    """Numbers that the authorities of the United States, Britain and Germany keep free for fiction."""
    area = chance.pick(["212", "303", "415", "617"])
    return chance.pick(
        [
            "({0}) 555-01{1}",
            "{0}-555-01{1}",
            "+1 {0} 555 01{1}",
            "020 7946 09{1}",
            "+44 20 7946 09{1}",
            "+49 30 23125 1{1}",
            "1-{0}-555-01{1}",
            "{0}.555.01{1}",
        ]
    ).format(area, chance.digits(2))


def card(chance: Chance) -> str:
    """Sixteen digits of which the last makes Luhn's sum right (ISO/IEC 7812-1)."""
    body = chance.pick("45") + chance.digits(14)
    total = sum(sum(divmod(int(digit) * (2 - i % 2), 10)) for i, digit in enumerate(body))
    number = body + str(-total % 10)
    return chance.pick(["", " ", "-"]).join(number[i : i + 4] for i in range(0, 16, 4))


def iban(chance: Chance) -> str:
    """An account number whose two check digits are right (ISO 13616)."""
    country, bank = chance.pick(
        [("DE", chance.digits(18)), ("FR", chance.digits(23)), ("GB", "NWBK" + chance.digits(14))]
    )
    check = 98 - int("".join(str(int(c, 36)) for c in f"{bank}{country}00")) % 97
    number = f"{country}{check:02d}{bank}"
    return number if chance.random() < 0.5 else " ".join(number[i : i + 4] for i in range(0, len(number), 4))


def ssn(chance: Chance) -> str:
    """A social security number of the United States, which has no check digit."""
    return f"{100 + chance.below(500)}-{10 + chance.below(90)}-{1000 + chance.below(9000)}"


INVENTED: dict[str, Callable[[Chance], str]] = {"email": email, "phone": phone, "card": card, "iban": iban, "ssn": ssn}
PLACES: dict[str, Callable[[str, Chance], Iterator[Place]]] = {  # the first two leave no room for others where they are
    "truncation": truncation, "mojibake": mojibake, "tags": tags, "entities": entities, "wiki": wiki,
    "boilerplate": boilerplate, "unseen": unseen, "whitespace": whitespace, "hyphenation": hyphenation,
    **{kind: functools.partial(private, kind) for kind in INVENTED}, "typos": typos, "elongation": elongation,
}  # fmt: skip


# Documents that ought to go.


def near_duplicate(text: str, chance: Chance) -> str:
    """A copy in which 0.5 to 3 % of the words are replaced, left out or swapped with the next."""
    pieces = re.split(r"(\s+)", text)  # words at even places
    n_words = len(pieces) // 2 + 1
    for _ in range(max(1, round(n_words * (0.005 + 0.025 * chance.random())))):
        i = 2 * chance.below(n_words - 1)
        forms = [(pieces[2 * chance.below(n_words)], pieces[i + 2]), ("", pieces[i + 2]), (pieces[i + 2], pieces[i])]
        pieces[i], pieces[i + 2] = chance.pick(forms)
    return "".join(pieces)


def mash(text: str, chance: Chance) -> str:
    """What fingers do on a keyboard when nobody thinks."""
    row = [chance.pick(KEYS) for _ in range(60)]
    words = ["".join(chance.pick(keys) for _ in range(2 + chance.below(9))) for keys in row]
    return " ".join(words[: 10 + chance.below(50)])


def language(text: str, chance: Chance) -> str:
    """Sentences in one of seven other languages."""
    known = sentences()["foreign"]
    left = list(known[chance.pick(sorted(known))])
    return " ".join(left.pop(chance.below(len(left))) for _ in range(5 + chance.below(3)))


def symbols(text: str, chance: Chance) -> str:
    """A table, a picture made of characters, a damaged file: more signs than words."""
    run = ["".join(chance.pick(SYMBOLS) for _ in range(1 + chance.below(6))) for _ in range(80)]
    return " ".join(part if chance.random() < 0.8 else chance.pick(["item", "x", "total", "no"]) for part in run)


def repetition(text: str, chance: Chance) -> str:
    """One line over and over."""
    lines = [line for line in text.split("\n") if len(line) > 20] or [text]
    return "\n".join([chance.pick(lines)] * (15 + chance.below(30)))


def stub(text: str, chance: Chance) -> str:
    """A page with nothing on it."""
    return chance.pick(sentences()["junk"]["stubs"])


DOCUMENTS: dict[str, Callable[[str, Chance], str]] = {
    "exact_duplicate": lambda text, chance: text, "near_duplicate": near_duplicate, "mash": mash, "language": language,
    "symbols": symbols, "repetition": repetition, "stub": stub,
}  # fmt: skip
