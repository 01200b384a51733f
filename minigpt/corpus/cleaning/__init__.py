"""Cleaning: small steps over the documents of a corpus, and a report of what each of them did.

    dataset, report = clean(load_corpus("tweets"))

Each step's docstring says what it may damage. `STEPS` are taken in order; any selection and any step of your own works.
"""

from minigpt.corpus.cleaning.language import Language
from minigpt.corpus.cleaning.pipeline import clean, clean_stream
from minigpt.corpus.cleaning.private import MaskPrivateData
from minigpt.corpus.cleaning.quality import Quality
from minigpt.corpus.cleaning.report import Example, Report, StepReport
from minigpt.corpus.cleaning.step import CorpusRule, Step
from minigpt.corpus.cleaning.steps import CODE_STEPS, STEPS

__all__ = [
    "CODE_STEPS",
    "STEPS",
    "CorpusRule",
    "Example",
    "Language",
    "MaskPrivateData",
    "Quality",
    "Report",
    "Step",
    "StepReport",
    "clean",
    "clean_stream",
]
