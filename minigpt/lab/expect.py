"""Is my number right? `expect` says whether a measured value lies in the band that seeds and machines give.

The bands are data, in bands.toml: low, high, unit, what the number is, how the band was measured, and the usual causes
of a value outside it.
"""

from __future__ import annotations

import functools
import html
import importlib.resources
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from IPython.display import display

from minigpt.config import nearest


@dataclass(frozen=True)
class Band:
    """Where a quoted number lies, over seeds and machines."""

    low: float
    high: float
    what: str
    measured: str
    unit: str = ""
    causes: tuple[str, ...] = field(default_factory=tuple)


@dataclass(frozen=True)
class Expectation:
    """A value and its band; shows itself as one line. `ok` is true when the value lies in the band."""

    name: str
    value: float
    band: Band

    @property
    def place(self) -> str:
        """in, below, above, or (for NaN) outside."""
        if self.band.low <= self.value <= self.band.high:
            return "in"
        return "outside" if math.isnan(self.value) else "below" if self.value < self.band.low else "above"

    @property
    def ok(self) -> bool:
        """Whether the value lies in the band."""
        return self.place == "in"

    def __repr__(self) -> str:
        band, unit = self.band, f" {self.band.unit}" if self.band.unit else ""
        line = f"{self.name} = {self.value:.4g}{unit} lies {self.place} the band {band.low:g} to {band.high:g}"
        if self.ok:
            return f"{line}."
        return f"{line} ({band.measured}). Usual causes: {' '.join(band.causes) or 'another seed, text or setting.'}"

    def _repr_html_(self) -> str:
        colour, word = ("#009E73", "as expected") if self.ok else ("#D55E00", "unexpected")
        style = f"border-left:4px solid {colour};padding:2px 8px"
        title = html.escape(f"{self.band.what}. Measured: {self.band.measured}", quote=True)
        return f'<div style="{style}" title="{title}"><b>{word}</b>: {html.escape(repr(self))}</div>'


def read_bands(path: Path | None = None) -> dict[str, Band]:
    """All bands, from `path` or from the package's own file."""
    return _own_bands() if path is None else _parse(path.read_text(encoding="utf-8"))


@functools.cache
def _own_bands() -> dict[str, Band]:
    return _parse(importlib.resources.files("minigpt.lab").joinpath("bands.toml").read_text(encoding="utf-8"))


def _parse(text: str) -> dict[str, Band]:
    return {
        name: Band(**entry | {"causes": tuple(entry.get("causes", ()))}) for name, entry in tomllib.loads(text).items()
    }


def expect(name: str, value: Any) -> None:
    """Show whether `value` lies in the band `name`; a value outside stops nothing. Errors as `compare`."""
    display(compare(name, value))


def compare(name: str, value: Any, path: Path | None = None) -> Expectation:
    """What `expect` shows. `path` is a file of bands other than the package's own.

    Raises:
        ValueError: there is no band of that name, or the value is not one number (None counts as NaN).
    """
    bands = read_bands(path)
    if name not in bands:
        raise ValueError(f"there is no band {name!r}.{nearest(name, list(bands))}")
    try:
        number = math.nan if value is None else float(getattr(value, "detach", lambda: value)())
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} is one number, and this is a {type(value).__name__}: {str(value)[:60]}.") from None
    return Expectation(name, number, bands[name])
