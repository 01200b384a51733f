"""Clean text made dirty on purpose: every kind of defect, at known places, so that cleaning can be scored.

The kinds are those of `minigpt.corpus.defects`. This module knows nothing of the steps that clean.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from datasets import Dataset

from minigpt.config import nearest
from minigpt.corpus.defects import DOCUMENTS, INVENTED, PLACES, Chance, sentences

Row = dict[str, Any]

APART = 24  # characters of clean text between two places
COPIES = ("exact_duplicate", "near_duplicate")
SMALLEST_TO_COPY = 40  # words; below, a single changed word makes a copy a text of its own
KINDS = (*PLACES, *DOCUMENTS, "contamination")
RATES: dict[str, float] = {**dict.fromkeys(PLACES, 0.08), **dict.fromkeys(DOCUMENTS, 0.04)}
UNKNOWABLE = {
    "typos": "whether teh is a typing error or a name is not in the text; guessing damages more than it mends",
    "elongation": "soooo may be so or soo: only letters that stand doubled in the right word come out right",
    "truncation": "what was cut off is not there",
}  # what no step can put right, and why
WHOLE = frozenset({*DOCUMENTS, "contamination"})  # kinds that are no place in a document: it ought to go


def plant(
    dataset: Dataset,
    rates: Mapping[str, float] | float = 1.0,
    *,
    evaluation: Sequence[str] = (),
    seed: int = 0,
) -> Dataset:
    """Spoil clean documents; the answer is known, and `minigpt.corpus.scoring.score` compares cleaning with it.

    Args:
        dataset: clean documents in the column `text`.
        rates: kind -> its share of documents: of those given for a kind that spoils places, and added to them for a
            kind of whole documents. A number multiplies RATES.
        evaluation: texts that must not be trained on; with them, documents that quote one are added ("contamination").

    Returns:
        Rows with `text`; `clean`, what a perfect cleaner makes of it, None for a document that ought to go; and `defects`,
        a list of {kind, start, end, clean_start, clean_end}: where a defect lies in text, and what belongs there in
        clean. A copy stands somewhere behind its original, which is kept free of other defects. For mojibake, apostrophes
        become typographic in the clean text too; private data stand in sentences that both texts have, masked in `clean`.

    Raises:
        ValueError: an unknown kind (the nearest is suggested), a rate outside 0 to 1, or no documents.
    """
    shares = {kind: rates * rate for kind, rate in RATES.items()} if isinstance(rates, int | float) else dict(rates)
    if evaluation:
        shares.setdefault("contamination", 0.04)
    for kind, share in shares.items():
        if kind not in KINDS:
            raise ValueError(f"there is no defect {kind!r}.{nearest(kind, list(KINDS))}")
        if not 0 <= share <= 1:
            raise ValueError(f"rates[{kind!r}]={share} must be a share of the documents, from 0 to 1.")
    if shares.get("contamination") and not evaluation:
        raise ValueError("contamination needs the texts to quote from: plant(..., evaluation=val_dataset['text']).")
    texts = dataset["text"][:]
    if not texts:
        raise ValueError("there are no documents to plant in: the data set has no rows.")
    chance = Chance(seed)
    originals = _originals(texts, shares, chance)
    rows: list[tuple[float, Row]] = []
    for number, text in enumerate(texts):
        kinds = [kind for kind in PLACES if chance.random() < shares.get(kind, 0)]
        rows.append((number, spoil(text, [] if number in originals else kinds, chance)))
    waiting = sorted(originals)
    for kind in (*DOCUMENTS, "contamination"):
        for _ in range(round(shares.get(kind, 0) * len(texts))):
            at = chance.below(len(texts))
            if kind in COPIES and originals:
                waiting = waiting or sorted(originals)
                at = waiting.pop(chance.below(len(waiting)))
            quoting = kind == "contamination"
            text = _quoting(texts[at], evaluation, chance) if quoting else DOCUMENTS[kind](texts[at], chance)
            defect = {"kind": kind, "start": 0, "end": len(text), "clean_start": 0, "clean_end": 0}
            rows.append((at + chance.random() * (len(texts) - at), {"text": text, "clean": None, "defects": [defect]}))
    rows.sort(key=lambda pair: pair[0])
    return Dataset.from_list([row for _, row in rows])


def _originals(texts: Sequence[str], shares: Mapping[str, float], chance: Chance) -> set[int]:
    """Documents that get no defect, so that copies can be made of them: as many as copies, at most half of all."""
    wanted = sum(round(shares.get(kind, 0) * len(texts)) for kind in COPIES)
    long_enough = [i for i, text in enumerate(texts) if len(text.split()) >= SMALLEST_TO_COPY]
    return {
        long_enough.pop(chance.below(len(long_enough))) for _ in range(min(wanted, len(texts) // 2, len(long_enough)))
    }


def spoil(text: str, kinds: Sequence[str], chance: Chance) -> Row:
    """One document with defects of some kinds: a row as `plant` makes it."""
    clean = _prepared(text, kinds, chance)
    taken: list[tuple[int, int, str, str]] = []
    for kind in sorted(kinds, key=list(PLACES).index):
        for start, end, dirty in PLACES[kind](clean, chance):
            apart = all(end + APART <= other[0] or other[1] + APART <= start for other in taken)
            if apart and dirty != clean[start:end]:
                taken.append((start, end, dirty, kind))
    parts, defects, at = [], [], 0
    length = 0
    for start, end, dirty, kind in sorted(taken):
        parts += [clean[at:start], dirty]
        length += start - at
        defects.append(
            {"kind": kind, "start": length, "end": length + len(dirty), "clean_start": start, "clean_end": end}
        )
        length, at = length + len(dirty), end
    return {"text": "".join([*parts, clean[at:]]), "clean": clean, "defects": defects}


def _prepared(text: str, kinds: Sequence[str], chance: Chance) -> str:
    """The clean text with room for the defects: what is garbled or masked must be there first."""
    if "mojibake" in kinds and text.isascii():
        text = text.replace("'", "’")
    about = sentences()["private"]
    for kind in kinds:
        if kind in INVENTED:
            sentence = chance.pick(about[kind]).replace("{}", f"<{kind.upper()}>")
            lines = text.split("\n")
            at = chance.below(len(lines) + 1)
            decoy = [chance.pick(about["decoys"])] if chance.random() < 0.5 else []
            text = "\n".join([*lines[:at], sentence, *decoy, *lines[at:]])
    return text


def _quoting(text: str, evaluation: Sequence[str], chance: Chance) -> str:
    """A document with 20 to 60 words in a row of an evaluation text in its middle."""
    words = chance.pick(evaluation).split()
    n = min(len(words), 20 + chance.below(41))
    first = chance.below(len(words) - n + 1)
    lines = text.split("\n")
    half = len(lines) // 2
    return "\n".join([*lines[:half], " ".join(words[first : first + n]), *lines[half:]])


def put_right(row: Row, kinds: Collection[str]) -> tuple[str, list[tuple[int, int]]]:
    """The text of a planted row with the defects of some kinds put right, and where each defect then lies.

    With every kind this is `clean`, with none it is `text`.
    """
    parts, places, length, at = [], [], 0, 0
    for defect in row["defects"]:
        right = defect["kind"] in kinds and defect["kind"] not in WHOLE
        piece = (
            row["clean"][defect["clean_start"] : defect["clean_end"]]
            if right
            else row["text"][defect["start"] : defect["end"]]
        )
        length += defect["start"] - at
        parts += [row["text"][at : defect["start"]], piece]
        places.append((length, length + len(piece)))
        length, at = length + len(piece), defect["end"]
    return "".join([*parts, row["text"][at:]]), places
