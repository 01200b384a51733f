import sys

import pyarrow
import pytest
import torch

from minigpt.hardware import memory_gb, release_memory


@pytest.mark.skipif(sys.platform != "linux", reason="other systems give memory back in ways of their own")
def test_memory_that_torch_and_arrow_no_longer_use_goes_back_to_the_system():
    psutil = pytest.importorskip("psutil")

    def used():
        return psutil.Process().memory_info().rss / 1e6  # MB

    release_memory()
    before = used()
    kept = [torch.ones(25_000) for _ in range(1000)]  # 100 MB in small pieces
    columns = [pyarrow.array(range(100_000)) for _ in range(100)]  # 80 MB
    grown = used() - before
    del kept, columns
    release_memory()
    assert grown > 150 and used() - before < 0.3 * grown


def test_a_machine_says_how_much_memory_it_has_or_that_it_does_not_know():
    found = memory_gb()
    assert found is None or found[0] >= found[1] > 0
