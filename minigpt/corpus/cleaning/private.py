"""Private data and swear words, masked: what is replaced is gone for good, and a reader still sees what kind it was.

Numbers with a checksum are masked only where it is right, so that nine in ten other numbers of their length stay.
"""

from __future__ import annotations

import codecs
import functools
import importlib.resources
import re
import tomllib
from dataclasses import dataclass

from minigpt.corpus.cleaning.step import until_stable

# A pattern begins with a character, and then makes sure of what stood before it: that is the order `re` is fast in.
FIRST_DIGIT = r"[0-9](?<![\w.+/-][0-9])"
AFTER = r"(?![\w]|[./-][0-9])"
DOMAIN = r"(?:[A-Za-z0-9-]{1,63}+\.){1,8}[A-Za-z]{2,24}+(?![\w@])"
MAIL_SIGN = re.compile(rf"@(?<=[\w%+-]@){DOMAIN}")
EMAIL = re.compile(rf"[\w%+-](?<![\w.%+-][\w%+-])[\w.%+-]{{0,63}}+@{DOMAIN}")
URL = re.compile(r"(?<![\w/])(?:https?://|www\.)[^\s<>\"']++")
DIGITS = re.compile(r"[0-9][0-9 .()/-]{5}")  # what every number below holds
CARD = re.compile(
    rf"(?=[2-6]){FIRST_DIGIT}[0-9]{{3}}(?:([ -]?)[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{1,7}}|([ -]?)[0-9]{{6}}\2[0-9]{{5}}){AFTER}"
)
SSN = re.compile(rf"{FIRST_DIGIT}[0-9]{{2}}-[0-9]{{2}}-[0-9]{{4}}{AFTER}")
IPV4 = re.compile(rf"{FIRST_DIGIT}[0-9]{{0,2}}(?:\.[0-9]{{1,3}}){{3}}{AFTER}")
PHONE = re.compile(
    r"[+(0-9](?<![\w.+/(-][+(0-9])(?<![0-9] [+(0-9])(?:"
    r"(?<=\+)[0-9](?:[ .()/-]{0,2}[0-9]){7,14}+"  # international: +44 20 7946 0958 (ITU-T E.164)
    r"|(?:(?<=1)[ .-]\(?[2-9]|(?<=\()[2-9]|(?<=[2-9]))[0-9]{2}(?:\) ?|[ .-])[2-9][0-9]{2}[ .-][0-9]{4}"  # North America
    r"|(?:(?<=\()0|(?<=0))[1-9][0-9]{1,3}\)?[ /-][0-9]{3,4}[ -]?[0-9]{3,4}"  # with the 0 of a trunk call: 020 7946 0958
    rf"){AFTER}"
)
IBAN_SIGN = re.compile(r"[A-Z]{2}[0-9]{2} ?[A-Z0-9]{4}")
IBAN = re.compile(r"[A-Z](?<!\w[A-Z])[A-Z][0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")


def passes_luhn(number: str) -> bool:
    """Whether the last digit is the check digit of a payment card (ISO/IEC 7812-1, Luhn's formula)."""
    digits = [int(digit) for digit in reversed(number) if digit.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def passes_mod_97(account: str) -> bool:
    """Whether the two check digits of an IBAN are right (ISO 13616: letters as 10 to 35, remainder 1)."""
    plain = account.replace(" ", "")
    moved = plain[4:] + plain[:4]
    return 15 <= len(plain) <= 34 and int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def _card(match: re.Match) -> str:
    number = re.sub("[ -]", "", match[0])
    return "<CARD>" if 13 <= len(number) <= 19 and len(set(number)) > 1 and passes_luhn(number) else match[0]


def _ssn(match: re.Match) -> str:
    area, group, serial = match[0].split("-")
    issued = area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
    return "<SSN>" if issued else match[0]


def _ipv4(match: re.Match) -> str:
    return "<IP>" if all(int(part) <= 255 for part in match[0].split(".")) else match[0]


def _iban(match: re.Match) -> str:
    """The longest beginning that is an account number; words in capitals may follow it."""
    found = match[0]
    for end in (len(found), *(i for i in range(len(found) - 1, 14, -1) if found[i] == " ")):
        if passes_mod_97(found[:end]):
            return "<IBAN>" + found[end:]
    return found


@dataclass(frozen=True)
class MaskPrivateData:
    """<EMAIL>, <PHONE>, <CARD>, <IBAN>, <SSN> and <IP> in place of what they name; <URL> too, with `urls=True`.

    Phone numbers are seen with a country code, in the North American form, or with the 0 of a trunk call. Names and
    street addresses are not seen at all. May damage: numbers of a version with four parts, a number that is written
    like a phone's, and one in ten numbers that are as long as a card's and begin with 2 to 6.
    """

    urls: bool = False

    def __call__(self, text: str) -> str:
        return until_stable(self._masked)(text)

    def _masked(self, text: str) -> str:
        if "@" in text and MAIL_SIGN.search(text):
            text = EMAIL.sub("<EMAIL>", text)
        if self.urls and ("://" in text or "www." in text):
            text = URL.sub("<URL>", text)
        if IBAN_SIGN.search(text):  # before the numbers, parts of which may look like a card's or a phone's
            text = IBAN.sub(_iban, text)
        if DIGITS.search(text):
            text = PHONE.sub("<PHONE>", IPV4.sub(_ipv4, SSN.sub(_ssn, CARD.sub(_card, text))))
        return text


@functools.cache
def _profanity() -> tuple[tuple[str, ...], re.Pattern]:
    content = (
        importlib.resources.files("minigpt.corpus.cleaning").joinpath("profanity.toml").read_text(encoding="utf-8")
    )
    words = tuple(codecs.decode(word, "rot13") for word in tomllib.loads(content)["words"])
    return words, re.compile(
        rf"(?<![^\W_])(?:{'|'.join(words)})(?:s|es|ed|er|ers|ing|in|y|ty|ting|ted)?(?![^\W_])", re.IGNORECASE
    )


def mask_profanity(text: str) -> str:
    """<PROFANITY> in place of the few words in profanity.toml, which have no other meaning, and their common endings.

    Words that are harmless elsewhere (ass, bitch, cock, hell) are left alone. May damage: fiction, and speech as it was spoken.
    Does not see: words that are spelt to escape such a list.
    """
    words, pattern = _profanity()
    lower = text.lower()
    return pattern.sub("<PROFANITY>", text) if any(word in lower for word in words) else text
