"""What the notebooks use beside the package: check an exercise, ask whether a number is right, plots and widgets."""

from minigpt.lab import plots, widgets
from minigpt.lab.check import check
from minigpt.lab.expect import expect

__all__ = ["check", "expect", "plots", "widgets"]
