"""Texts by name: a catalog of sources, fetched once and checked, and texts of the learner's own."""

from minigpt.corpus.download import FetchError
from minigpt.corpus.sources import COURSE_SOURCES, DEFAULT, Source, cache_folder, catalog, fetch, is_cached, load_corpus

__all__ = [
    "COURSE_SOURCES",
    "DEFAULT",
    "FetchError",
    "Source",
    "cache_folder",
    "catalog",
    "fetch",
    "is_cached",
    "load_corpus",
]
