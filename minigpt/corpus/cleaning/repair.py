"""Repairs that keep every word: wrong encodings, invisible characters, white space, broken words, elongations.

Each takes a text and gives it back, the very same where there is nothing to do, which is looked for first and fast.
Each runs in time proportional to the text, whatever the text is: a pattern here begins at a character that it must
match, repeats possessively, and looks at most a bounded way back.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter

import ftfy
import numpy as np

from minigpt.corpus.cleaning.language import short_words
from minigpt.corpus.cleaning.step import until_stable

MOJIBAKE_ONLY = ftfy.TextFixerConfig(  # each of the rest is a step of its own, or no repair at all
    unescape_html=False,
    remove_terminal_escapes=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=False,
    fix_surrogates=False,
    remove_control_chars=False,
    normalization=None,
)


def _as_windows_1252(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    wrong = error.object[error.start : error.end]
    return wrong.decode("sloppy-windows-1252"), error.end  # an encoding of ftfy's, with a character for every byte


codecs.register_error("minigpt-windows-1252", _as_windows_1252)


def decode_bytes(content: bytes, name: str, repair: bool = False) -> str:
    """UTF-8 to text; with `repair`, bytes that are none are read as Windows-1252, one by one.

    Raises:
        ValueError: a byte that is no UTF-8, its position named.
    """
    try:
        return content.decode("utf-8", "minigpt-windows-1252" if repair else "strict")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is not UTF-8: byte {error.start} is 0x{content[error.start]:02x}. Decode it with its own encoding, "
            "or let clean(..., repair_bytes=True) read such bytes as Windows-1252."
        ) from None


COMMON = re.compile(  # what may stand alone: Latin letters and their accents, punctuation, signs, emoji
    "[\x00-\u024f\u0300-\u0328\u1e00-\u1eff\u2000-\u2bff\ufe00-\ufe0f\ufffd\U0001f000-\U0001ffff]"
)


def fix_encoding(text: str) -> str:
    """Text that was read in a wrong encoding, as in Itâ€™s, is read in the right one by ftfy (Speer 2019).

    Line by line, so that one line which cannot be mended holds no other back; and a line stays as it is where a repair
    would bring a single letter of another script: that is chance, from bytes of which some were lost. May damage: text
    that means to show such characters. Cannot restore: characters of which a byte was lost on the way.
    """
    if text.isascii():
        return text
    return "\n".join(line if line.isascii() else _mended(line) for line in text.split("\n"))


def _mended(line: str) -> str:
    after = ftfy.fix_encoding(line, MOJIBAKE_ONLY)
    if after == line:
        return line
    scripts = ["" if COMMON.match(c) or c in line else unicodedata.name(c, c).split()[0] for c in after]
    alone = (
        own and own not in (before, behind) for before, own, behind in zip(["", *scripts], scripts, [*scripts[1:], ""])
    )
    return line if any(alone) else after


NEW_LINE = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
TERMINAL = re.compile(r"\x1b\[[0-9;]{0,20}[A-Za-z]")  # what sets colours in a terminal
INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ufdd0-\ufdef\ufffe\uffff]"
    "|(?<![^\x00-\u02ff])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\u02ff])"  # joiners have a use in emoji and beyond Latin
)
HALVES = re.compile("([\ud800-\udbff])([\udc00-\udfff])|[\ud800-\udfff]")
ODD = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufdd0-\ufdef]"
    "|[\ufeff\ufff9-\ufffb\ufffe\uffff]"
)


def _whole(match: re.Match) -> str:
    if match[1] is None:
        return "\ufffd"
    return match[0].encode("utf-16", "surrogatepass").decode("utf-16")


@until_stable
def normalise_unicode(text: str) -> str:
    """One way to write each character (NFC, Unicode Annex 15), one kind of line break, and nothing that cannot be seen.

    Control characters, zero-width characters, byte-order marks, marks of direction and terminal colours go; joiners stay
    in emoji and in scripts that need them. Half a surrogate pair becomes U+FFFD. May damage: mixed Arabic or Hebrew
    and Latin lines, which may then be shown in another order; form feeds between the pages of a source file.
    """
    if ODD.search(text):
        text = NEW_LINE.sub("\n", text.replace("\xad\n", "-\n"))  # a soft hyphen at the end of a line was a visible one
        text = HALVES.sub(_whole, text)
        text = INVISIBLE.sub("", TERMINAL.sub("", text))
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


EMPTY_LINES = re.compile(r"\n{3,}+")
SPACE = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
INNER_SPACES = re.compile(r"(?<=\S)(?:\t[ \t]*+| [ \t]++)")


def tidy_whitespace(text: str) -> str:
    """Every kind of blank becomes a space, one between words and none at a line's end; at most one empty line in a row.

    A line keeps the blanks it begins with, so verse and lists stay indented. May damage: columns that were aligned with
    blanks, and the two spaces that some typists put after a full stop.
    """
    if not text.isascii():
        text = SPACE.sub(" ", text)
    text = "\n".join([line.rstrip() for line in text.split("\n")]).strip("\n")
    if "  " in text or "\t" in text:
        text = INNER_SPACES.sub(" ", text)
    return EMPTY_LINES.sub("\n\n", text) if "\n\n\n" in text else text


BROKEN = re.compile(r"(?<=[a-zß-ÿ])-\n[ \t]*+([a-zß-ÿ]++)(\S*+)[ \t]*+(\n?)")
WORD = re.compile(r"[A-Za-zÀ-ÿ]++")
COMPOUNDS = frozenset(["cross", "ever", "half", "high", "ill", "long", "low", "much", "old", "self", "short", "well"])
QUALITIES = frozenset(  # narrow-mouthed, broad-shouldered: they begin a compound that ends in -ed
    ["broad", "deep", "double", "fair", "full", "hard", "heavy", "light", "narrow", "sharp", "soft", "strong", "thick"]
)
LONGEST_WORD, LONG_HALF = 40, 5


@until_stable
def join_broken_words(text: str) -> str:
    """A word that a hyphen broke at the end of a line is whole again, on the upper line: nomi-/nated is nominated.

    The hyphen may also belong there, as in narrow-/mouthed. So the text is left alone where the halves are words that
    the document uses elsewhere and the whole is none, where the first half often begins a compound (self-, well-, or
    broad- before -ed), or where it has a capital (North-/east).
    May damage: a compound whose halves occur nowhere else in the document.
    """
    if "-\n" not in text:
        return text
    matches = list(BROKEN.finditer(text))
    if not matches:
        return text
    words = Counter(word.lower() for word in WORD.findall(text))
    words.subtract([word.lower() for match in matches for word in (_left_half(match), match[1])])

    def join(match: re.Match) -> str:
        left, right = _left_half(match), match[1]
        if not left.islower() or match[2].startswith(":"):  # North-/east, or what comes next is a link
            return match[0]
        compound = left in COMPOUNDS or (left in QUALITIES and right.endswith("ed") and len(right) >= LONG_HALF)
        if words[left + right] < 1 and (compound or (words[left] > 0 and words[right] > 0)):
            return match[0]
        line_end = "\n" if match[3] or match.end() < len(text) else ""
        return right + match[2] + line_end

    return BROKEN.sub(join, text)


def _left_half(match: re.Match) -> str:
    before = match.string[max(0, match.start() - LONGEST_WORD) : match.start()]
    return WORD.findall(before)[-1]


DRAWN_OUT = re.compile(r"([A-Za-z])\1{2,}+")
LETTERS_BEFORE, LETTERS_AFTER = re.compile("[A-Za-zÀ-ÿ']*$"), re.compile("[A-Za-zÀ-ÿ']*")
SHOUTED = re.compile(r"([!?])\1{3,}+|\.{5,}+")
NAMED = re.compile(r"\W*(?:[IVXLCDM]+|[ivxlcdm]+|[A-Z]{3,4})(?:['’]?s)?\W*")  # Henry VIII's, (iii), AAA, the IEEE's
PRICE = re.compile(r"[ivxlcdm]+\.[a-z]")  # iiii.d. is four pence
NOT_A_WORD = re.compile(r"[\d/@#_\\]|www|://")
LONG_TEXT = 2000  # characters from which arrays find three alike in a row faster than a pattern does


def _may_be_drawn_out(text: str) -> bool:
    if len(text) < LONG_TEXT:
        return DRAWN_OUT.search(text) is not None
    letters = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
    same = letters[1:] == letters[:-1]
    return bool((same[1:] & same[:-1] & (letters[2:] >= ord("A"))).any())


@until_stable
def shorten_elongations(text: str) -> str:
    """A letter that stands three times or more in a row stands once or twice, and !!!! and ???? three times.

    Once or twice, whichever makes a word that the document has elsewhere or that is one of English's commonest: sooooo
    is so, and tooo is too. Where neither does, or both, it is twice (yesss is yess): nothing is guessed. Roman numerals,
    acronyms of up to four letters, links, names with @ or # and words with digits stay. May damage: words of other
    languages with three letters alike (German Schifffahrt); how loud somebody was.
    """
    if _may_be_drawn_out(text) and DRAWN_OUT.search(text):
        words = {word.lower() for word in WORD.findall(text)} | short_words("en")
        text = DRAWN_OUT.sub(lambda match: _shortened(match, words), text)
    if "!!!!" in text or "????" in text or "....." in text:
        text = SHOUTED.sub(lambda match: match[0][:3], text)
    return text


def _shortened(match: re.Match, words: set[str]) -> str:
    start, end = match.span()
    before = re.split(r"\s", match.string[max(0, start - LONGEST_WORD) : start])[-1]
    after = re.split(r"\s", match.string[end : end + LONGEST_WORD], maxsplit=1)[0]
    whole = before + match[0] + after
    head = LETTERS_BEFORE.search(before)[0]
    if NOT_A_WORD.search(whole) or NAMED.fullmatch(whole) or PRICE.match(head + match[0] + after):
        return match[0]
    head, tail = head.lower(), LETTERS_AFTER.match(after)[0].lower()
    once, twice = (head + match[1].lower() * n + tail for n in (1, 2))
    return match[1] if once in words and twice not in words else match[0][:2]
