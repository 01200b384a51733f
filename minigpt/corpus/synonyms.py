"""Which word may stand for another: pairs from WordNet that are near to each other both ways, and their forms.

Synonyms belong to a meaning and not to a word. A pair is taken only where the meaning that both share is the one in which
each of the two is mostly used, by the counts of WordNet's tagged text (Miller et al. 1993), where the part of speech is
plain, and where no meaning of one is the opposite of one of the other. Most words have no such partner, and stay.
This module knows nothing of texts.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib.resources
import json
import re
import tarfile
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minigpt.corpus.sources import cache_folder, catalog, fetch
from minigpt.files import as_text, write_atomically

VERSION = 1  # part of the cache's name: raise it when the choice of words changes
FILES = "*/wn/data/wordnet-3.0/*"
KINDS = {"1": "noun", "2": "verb", "3": "adjective", "4": "adverb", "5": "adjective"}  # of a key in index.sense
SHARE = {"noun": 0.55, "verb": 0.75, "adjective": 0.7, "adverb": 0.55}  # of a word's uses, in the meaning of the pair
PLAIN = 0.85  # of a form's uses, how many must be of the part of speech
SEEN = 3  # uses in the tagged text, below which a word of several meanings is left alone
TOPICS = {"05": "animal", "06": "thing", "08": "body", "10": "words", "13": "food", "14": "group", "15": "place",
          "17": "object", "18": "person", "20": "plant", "23": "amount", "27": "stuff", "28": "time"}  # fmt: skip
SELDOM = re.compile(
    r"\([^)]*\b(slur|slang|offensive|vulgar|obscene|disparag|archaic|dialect|British|Scottish|informal)"
)
LISTS = tomllib.loads(importlib.resources.files("minigpt.corpus").joinpath("synonyms.toml").read_text(encoding="utf-8"))
PARTED = frozenset(LISTS.pop("parted"))
WORDS = {name: frozenset(words.split()) for name, words in LISTS.items()}  # words by what they do in a sentence
SHIFTERS, GRAMMAR = WORDS["shifters"], WORDS["grammar"]
FUNCTION_WORDS = GRAMMAR | WORDS["no_synonyms"]


@dataclass(frozen=True)
class Lexicon:
    """What `augment` needs to know of English.

    `forms` is a word as it is written, in small letters, to its part of speech and what may stand for it; `compounds` are
    pairs of words that mean something together; `names` are words that are names when they have a capital; `topics` are
    nouns that feel nothing and judge nothing, with what they are and in which number: person, person+s, place.
    """

    forms: Mapping[str, tuple[str, tuple[str, ...]]]
    compounds: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    topics: Mapping[str, str] = field(default_factory=dict)


@functools.cache
def lexicon() -> Lexicon:
    """The pairs of WordNet 3.0, made once from its archive and kept in the cache. FetchError where it is not here."""
    source = next(source for source in catalog() if source.name == "wordnet")
    kept = cache_folder() / f"synonyms-{source.sha256[:8]}-{VERSION}.json"
    try:
        return _from(json.loads(kept.read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # not made yet, or damaged
        found = build(_read(fetch("wordnet")))
    known = {name: value if isinstance(value, dict) else sorted(value) for name, value in asdict(found).items()}
    with suppress(OSError):  # a cache that cannot be written costs seconds the next time
        write_atomically(kept.parent, {kept.name: as_text(json.dumps(known))})
    return found


def _from(known: dict[str, Any]) -> Lexicon:
    forms = {word: (kind, tuple(others)) for word, (kind, others) in known["forms"].items()}
    return Lexicon(forms, frozenset(known["compounds"]), frozenset(known["names"]), known["topics"])


def _read(archive: Path) -> dict[str, str]:
    """WordNet's files by name, in one walk through the archive: it is read four times as fast as in the order of names."""
    with tarfile.open(archive, mode="r|*") as opened:
        wanted = (member for member in opened if fnmatch.fnmatch(member.name, FILES))
        return {member.name.rpartition("/")[2]: opened.extractfile(member).read().decode("utf-8") for member in wanted}


@dataclass
class _Word:
    """A lemma in one part of speech: how often it was tagged with each of its meanings (offsets in data.*)."""

    counts: dict[str, int]

    def share(self, meaning: str) -> float:
        """How surely the word has this meaning, 0 to 1, half a use added to each meaning for what was not seen."""
        if len(self.counts) == 1:
            return 1.0
        return self.counts[meaning] / (self.total + 0.5 * len(self.counts)) if self.total >= SEEN else 0.0

    @functools.cached_property
    def total(self) -> int:
        return sum(self.counts.values())


def build(files: Mapping[str, str]) -> Lexicon:
    """A lexicon from WordNet's files by name: index.sense, data.noun and the like, noun.exc and the like (wndb(5WN))."""
    words: dict[tuple[str, str], _Word] = defaultdict(lambda: _Word({}))
    compounds, topic_of = set(), {}
    for line in files["index.sense"].splitlines():
        key, offset, rank, count = line.split()
        lemma, _, rest = key.partition("%")
        if lemma.count("_") == 1:
            compounds.add(lemma.replace("_", " "))
        elif lemma.isascii() and lemma.isalpha():
            counts = words[lemma, KINDS[rest[0]]].counts
            counts[offset] = counts.get(offset, 0) + int(count)
            if rank == "1" and rest[0] == "1":
                topic_of[lemma] = TOPICS.get(rest[2:4])
    meanings, opposites, names = _meanings(files)
    irregular = {kind: _irregular(files.get(f"{short}.exc", "")) for short, kind in SHORT.items()}
    uses: dict[str, dict[str, set[tuple[str, str]]]] = defaultdict(lambda: defaultdict(set))
    made = {(lemma, kind): dict(inflect(lemma, kind, irregular[kind].get(lemma, ()))) for lemma, kind in words}
    for (lemma, kind), by_ending in made.items():
        for ending, form in by_ending.items():
            uses[form][kind].add((lemma, ending))
        for form in irregular[kind].get(lemma, ()):
            if form not in by_ending.values():
                uses[form][kind].add((lemma, "irregular"))
    plain = {form: found for form, kinds in uses.items() if (found := _plain(form, kinds, words))}
    forms, topics = {}, {}
    for form, (lemma, kind, ending) in plain.items():
        partners = (made[other, kind].get(ending) for other in _partners(lemma, kind, words, meanings, opposites))
        found = {other for other in partners if plain.get(other, ("", ""))[1] == kind and other != form}
        if found:
            forms[form] = (kind, tuple(sorted(found)))
        if kind == "noun" and words[lemma, kind].total >= SEEN and topic_of.get(lemma):
            topics[form] = topic_of[lemma] + "+s" * (ending == "s")
    touched = forms.keys() | topics.keys()
    used = {pair for pair in compounds if not touched.isdisjoint(pair.split())}
    return Lexicon(forms, frozenset(used), frozenset(names & touched), topics)


SHORT = {"noun": "noun", "verb": "verb", "adj": "adjective", "adv": "adverb"}


def _plain(form: str, kinds: Mapping, words: Mapping) -> tuple[str, str, str] | None:
    """Lemma, part of speech and ending of a form, where there is no doubt about them."""
    if form in SHIFTERS or form in FUNCTION_WORDS or len(form) < 3:
        return None
    uses = {kind: sum(0.5 + words[lemma, kind].total for lemma, _ in found) for kind, found in kinds.items()}
    kind = max(uses, key=uses.__getitem__)
    (lemma, ending), *others = kinds[kind]
    if others or uses[kind] < PLAIN * sum(uses.values()) or (len(uses) > 1 and ending in ("ed", "ing")):
        return None
    return lemma, kind, ending


def _partners(lemma: str, kind: str, words: Mapping, meanings: Mapping, opposites: set) -> Iterator[str]:
    word = words[lemma, kind]
    for meaning in word.counts:
        others, seldom = meanings.get((kind, meaning), ((), False))
        if seldom or word.share(meaning) < SHARE[kind]:
            continue
        for other in others:
            known = words.get((other, kind))
            is_short = lemma.startswith(other) or other.startswith(lemma)  # minute and min, group and grouping
            is_common = known and known.total > 1 and known.share(meaning) >= SHARE[kind]
            if is_common and not is_short and (lemma, other) not in opposites:
                yield other


def _meanings(files: Mapping[str, str]) -> tuple[dict, set[tuple[str, str]], set[str]]:
    """The words of each (part of speech, offset), pairs of opposites, and words that are written with a capital."""
    meanings, pointers, names = {}, [], set()
    for short, kind in SHORT.items():
        for line in files[f"data.{short}"].splitlines():
            if line.startswith("  "):  # the licence
                continue
            fields, _, gloss = line.partition("|")
            parts = fields.split()
            n = int(parts[3], 16)
            written = [re.sub(r"\(\w+\)$", "", word) for word in parts[4 : 4 + 2 * n : 2]]
            names.update(word.lower() for word in written if word[0].isupper())
            small = [word for word in written if word.isascii() and word.isalpha() and word.islower()]
            meanings[kind, parts[0]] = (small, bool(SELDOM.match(gloss.strip())))
            at = 5 + 2 * n
            for symbol, offset, _, places in zip(*(parts[at + i : at + 4 * int(parts[at - 1]) : 4] for i in range(4))):
                if symbol == "!":
                    pointers.append((written[int(places[:2], 16) - 1].lower(), kind, offset, int(places[2:], 16) - 1))
    written_at = {key: words for key, (words, _) in meanings.items()}
    opposites = {(word, other) for word, kind, offset, _ in pointers for other in written_at[kind, offset]}
    opposites |= {tuple(pair.split()) for pair in PARTED}
    return meanings, opposites | {(b, a) for a, b in opposites}, names


def _irregular(content: str) -> dict[str, list[str]]:
    found = defaultdict(list)
    for line in content.splitlines():
        form, *lemmas = line.split()
        for lemma in lemmas:
            found[lemma].append(form)
    return found


def inflect(lemma: str, kind: str, irregular: tuple[str, ...] | list[str] = ()) -> Iterator[tuple[str, str]]:
    """(ending, form) of each form of a word that is known for sure; `irregular` are those of WordNet's lists.

    What is irregular and tells not which form it is, such as `sang`, is left out.
    """
    yield "", lemma
    y = re.search(r"[^aeiou]y$", lemma)
    hiss = re.search(r"(s|x|z|ch|sh)$", lemma)
    plural = f"{lemma[:-1]}ies" if y else f"{lemma}es" if hiss else f"{lemma}s"
    stem = lemma[:-1] if re.search(r"[^aeioy]e$|[iu]e$", lemma) else lemma
    doubled = re.search(r"^[^aeiou]*[aeiou][bdgklmnprtvz]$", lemma)  # stop, stopped; longer words are in the lists
    stem += lemma[-1] if doubled else ""
    if kind == "noun" and not irregular and not lemma.endswith(("f", "fe", "man", "ics", "o")):
        yield "s", plural
    elif kind == "noun" and len(irregular) == 1:
        yield "s", irregular[0]
    elif kind == "verb":
        yield "s", f"{lemma}es" if lemma.endswith("o") else plural
        ing = [form for form in irregular if form.endswith("ing")] or [stem + "ing" if stem else lemma]
        if len(ing) == 1 and not lemma.endswith("ie"):
            yield "ing", ing[0]
        past = [form for form in irregular if not form.endswith("ing")]
        regular = [form for form in past if form.endswith("ed") and form[:2] == lemma[:2]]
        if not past:
            yield "ed", f"{lemma[:-1]}ied" if y else f"{stem}ed"
        elif len(past) == 1 and regular:
            yield "ed", regular[0]
    elif kind == "adjective":
        for ending in ("er", "est"):
            listed = [form for form in irregular if form.endswith(ending)]
            if len(listed) == 1 and listed[0][0] == lemma[0]:
                yield ending, listed[0]
            elif not irregular and re.fullmatch(r"[^aeiou]*[aeiou]{1,2}[^aeiou]+e?", lemma):
                yield ending, f"{lemma[:-1]}i{ending}" if y else stem + ending
