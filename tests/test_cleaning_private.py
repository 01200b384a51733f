import pytest

from minigpt.corpus.cleaning.private import MaskPrivateData, mask_profanity, passes_luhn, passes_mod_97

mask = MaskPrivateData()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to jane.doe+x@mail.example.co.uk, please.", "Write to <EMAIL>, please."),
        ("(212) 555-0187, 212-555-0187, 212.555.0187, 1-800-555-0199", "<PHONE>, <PHONE>, <PHONE>, <PHONE>"),
        ("+44 20 7946 0958 or 020 7946 0958 or +49 (0)30 123456.", "<PHONE> or <PHONE> or <PHONE>."),
        ("4111 1111 1111 1111, 4111-1111-1111-1111, 378282246310005", "<CARD>, <CARD>, <CARD>"),
        ("GB82 WEST 1234 5698 7654 32 AND DE89370400440532013000", "<IBAN> AND <IBAN>"),
        ("SSN 123-45-6789 from 192.168.0.1.", "SSN <SSN> from <IP>."),
        ("(555-0187 x) call 415-555-2671 24 hours", "(555-0187 x) call <PHONE> 24 hours"),
    ],
)
def test_private_data_is_masked_by_kind(text, masked):
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "@user at user@localhost, 5 @ 3.20 each",
        "from 1790-1860, 3-4, 1914-1918, 2020-01-01, 12:30:05",
        "5,493,000 of $15,000,000 is 36.62 %, pi is 3.14159265358979",
        "Order 4532 0151 1283 0361 is no card's: the sum is wrong",
        "1111 1111 1111 1117",
        "000-12-3456, 666-12-3456, 912-34-5678, 123-00-6789 were never issued",
        "300.1.1.1, version 10.4.2, v1.2.3.4, 1.2.3.4.5",
        "ISBN 978-3-16-148410-0",
        "AB12 CDEF 1234 5678 9012",
        "In 1601, 1602 and 1603; in 1861-65; 100 200 3000",
    ],
)
def test_what_only_looks_private_stays(text):
    assert mask(text) == text


def test_links_are_masked_when_asked():
    text = "See https://example.org/a?b=1 and www.example.org now."
    assert mask(text) == text
    assert MaskPrivateData(urls=True)(text) == "See <URL> and <URL> now."


def test_checksums_are_those_of_the_standards():
    assert passes_luhn("79927398713") and not any(passes_luhn(f"7992739871{d}") for d in "012456789")
    assert passes_mod_97("GB82 WEST 1234 5698 7654 32") and not passes_mod_97("GB83 WEST 1234 5698 7654 32")
    assert not passes_mod_97("GB82")


def test_profanity_is_masked_and_harmless_words_stay():
    swear = "fu" + "ck"
    assert mask_profanity(f"What the {swear}, {swear.upper()}ing {swear}ers!") == (
        "What the <PROFANITY>, <PROFANITY> <PROFANITY>!"
    )
    for text in ("Scunthorpe and shitake, an ass, a cock, hell", "the cuntline of a rope"):
        assert mask_profanity(text) == text
