"""A trained model made smaller: single weights set to zero, at once or little by little, or whole heads and channels gone."""

from minigpt.prune.magnitude import PATTERNS, check_choice, prune, sparsity_of
from minigpt.prune.schedule import GradualPruning, KeepZeros, sparsity_at
from minigpt.prune.second_order import prune_blocks, prune_columns
from minigpt.prune.structured import prune_structured

__all__ = [
    "PATTERNS",
    "GradualPruning",
    "KeepZeros",
    "check_choice",
    "prune",
    "prune_blocks",
    "prune_columns",
    "prune_structured",
    "sparsity_at",
    "sparsity_of",
]
