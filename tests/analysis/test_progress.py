"""The progress of a long analysis."""

import pytest

from mmphate_gpu import InputError
from mmphate_gpu.analysis.progress import progress


@pytest.mark.parametrize("verbose", [0, 1])
def test_the_callback_hears_every_part_and_a_bar_is_drawn_only_if_asked(verbose, capsys):
    calls = []
    with progress(4, verbose, lambda *call: calls.append(call), "probe") as advance:
        for parts in (1, 1, 2):
            advance(parts)
    assert calls == [("probe", 1, 4), ("probe", 2, 4), ("probe", 4, 4)]
    assert ("probe" in capsys.readouterr().err) == bool(verbose)


def test_a_callback_that_cannot_be_called_is_refused():
    with pytest.raises(InputError, match="callback=3 must be callable"), progress(4, 0, 3, "probe"):
        pass
