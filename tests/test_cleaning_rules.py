import pytest

from minigpt.corpus.cleaning import Quality
from minigpt.corpus.cleaning.language import Language, find_language
from minigpt.corpus.cleaning.measures import Measures

SPEECH = "HAMLET:\nTo be, or not to be: that is the question:\nWhether 'tis nobler in the mind to suffer\nThe slings and arrows"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("It is a truth that is known to all of us.", "en"),
        ("Der Zug nach Hamburg fährt heute nicht, und wir bleiben in der Stadt.", "de"),
        ("Le train n'est pas à l'heure, mais nous avons le temps.", "fr"),
        ("El tren llegó tarde y no pudimos ver a los niños.", "es"),
        ("Il treno non è in orario, ma abbiamo tempo per un caffè.", "it"),
        ("O trem não chegou, mas ela também não estava com pressa.", "pt"),
        ("De trein is niet op tijd, maar dat is voor ons geen probleem.", "nl"),
        ("Поезд опаздывает, и мы пьём чай.", "ru"),
        ("火车今天晚点了，我们喝茶。", "zh"),
        ("今日は電車が遅れています。", "ja"),
        ("기차가 늦었어요.", "ko"),
        ("12345 !!!", None),
        ("", None),
    ],
)
def test_the_language_is_told_by_short_words_and_script(text, language):
    assert find_language(text) == language


def test_only_other_languages_are_dropped():
    rule = Language()
    assert rule(SPEECH) is None and rule("Hamlet, Horatio, Marcellus") is None
    assert rule("@united MIA-EWR #384 excellent crew w/ s z v") is None
    assert rule("Nous avons marché dans la ville, et il ne faisait pas froid.") == "language fr"
    assert rule("lorem ipsum dolor sit amet " * 8) == "unknown language"
    assert Language(keep=("fr", "en"))("Nous avons marché dans la ville, et il ne faisait pas froid.") is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("404 Not Found", "too few words"),
        ("a b c d e f", "words too short"),
        ("supercalifragilistic antidisestablishment incomprehensibilities counterrevolutionaries", "words too long"),
        ("#sale #now #win big", "too many symbols"),
        ("12 3456 789 1011 -- ++ 1213 14 total", "too few words with letters"),
        ("asdf jklqwzx vbnmq wqrtz hjkx plkjq zxcvb qwpf dfgkl", "keyboard mash"),
        ("Lorem ipsum dolor sit amet and so on", "placeholder"),
        ("- one item here\n- two items here\n- three of them\n- and four", "bullets"),
        ("and then...\nso he...\nwas not...\nor was...", "lines end in ellipses"),
        ("All work and no play makes Jack dull.\n" * 8, "repeated lines"),
        ("and to ha " + "ha " * 50, "one run of 2 words"),
        ("name mill river stone " * 26, "too few stop words"),
    ],
)
def test_a_text_that_is_not_worth_reading_is_dropped_and_the_rule_named(text, rule):
    reason = Quality()(text)
    assert reason is not None and reason.split(":")[0] == rule


@pytest.mark.parametrize(
    "text", [SPEECH, "Thank you so much!", "A: Hi\nB: Hello", "@JetBlue the crew was great #fly http://t.co/x"]
)
def test_short_speech_and_verse_stay(text):
    assert Quality()(text) is None


def test_a_paragraph_said_twice_in_the_middle_of_others_is_found():
    words = [f"word{i} the of" for i in range(40)]
    once = " ".join(words)
    assert Quality(max_top_runs=None)(once) is None
    assert Quality(max_top_runs=None)(once + " " + once).startswith("repeated runs: 0.5")


def test_measures_equal_what_counting_by_hand_gives():
    m = Measures("the cat sat on the cat.\n\n- a dog…\n\nthe end #x")
    assert (m.words, m.lines, m.stop_words) == (12, 3, 1)
    assert m.with_letters == pytest.approx(11 / 12) and m.symbols == 1 / 12
    assert m.bullets == m.ellipses == 1 / 3 and m.sentences == 1
    assert m.word_length == pytest.approx(sum(map(len, m.tokens)) / 12)
    same = Measures("one two three four five six one two three four five seven")
    assert same.repeated_runs == pytest.approx(len("one two three four five ") / len(same.text))
    assert same.top_run(3) == pytest.approx(2 * len("three four five") / len(same.text))
    assert same.top_run(3, limit=0.99) == 0.0 and same.top_run(9) == 0.0
    assert Measures("a b\nx\na b\na b").repeated_lines == pytest.approx(6 / 13)
    assert Measures("").word_length == 0 and Measures("").repeated_runs == 0 and Measures("").odd_pairs == 0


def brute_force_top_run(text, n):
    words = text.split()
    runs = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
    return max(len(run) * runs.count(run) * (runs.count(run) > 1) for run in runs) / len(text)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_short_cut_to_the_most_frequent_run_is_exact(n):
    text = ("to be or not to be that is the question and to be or not to be is the answer " * 3).strip()
    true = min(1.0, brute_force_top_run(text, n))
    assert Measures(text).top_run(n) == pytest.approx(true)
    for limit in (0.01, true * 0.999, true * 1.001, 0.9):
        assert (Measures(text).top_run(n, limit) > limit) == (true > limit)


def test_the_papers_thresholds_are_there_and_every_field_names_its_source():
    paper = Quality.gopher()
    assert (paper.min_words, paper.max_words, paper.min_word_length, paper.max_symbols) == (50, 100_000, 3.0, 0.1)
    assert paper("Thank you so much!").startswith("too few words: 4 < 50")
    assert all("Gopher" in doc or "C4" in doc or "ours" in doc for doc in Quality.describe().values())
