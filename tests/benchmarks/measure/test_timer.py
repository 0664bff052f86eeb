"""The clock."""

from __future__ import annotations

import pytest
import torch

from benchmarks.measure import timer

CPU = torch.device("cpu")


def test_the_first_call_stands_apart():
    calls = []
    cold, warm = timer.cold_and_warm(lambda: calls.append(1), CPU, 3)
    assert len(calls) == 4 and len(warm) == 3 and cold > 0


class Queue:
    """A stream whose calls take ``seconds`` each, and the events that its clock stamps."""

    def __init__(self, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds, self.now, self.calls, self.samples = seconds, 0.0, 0, []
        queue = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at, self.calls = queue.now, queue.calls

            def synchronize(self) -> None:
                pass

            def elapsed_time(self, end: Event) -> float:
                queue.samples.append(end.calls - self.calls)
                return (end.at - self.at) * 1e3

        monkeypatch.setattr(torch.cuda, "Event", Event)

    def call(self) -> None:
        self.now += self.seconds
        self.calls += 1


@pytest.mark.parametrize("seconds, together", [(0.7e-6, 2048), (0.3e-3, 4), (0.02, 1)])
def test_events_lie_a_millisecond_apart(monkeypatch, seconds, together):
    queue = Queue(seconds, monkeypatch)
    cold, warm = timer.cold_and_warm(queue.call, torch.device("cuda"), 3)
    assert [cold, *warm] == pytest.approx([seconds] * 4)
    assert queue.samples[0] == 1 and queue.samples[-3:] == [together] * 3 and together * seconds >= 1e-3


def test_what_calls_change_is_put_back_outside_the_clock(monkeypatch):
    queue, put_back = Queue(0.3e-3, monkeypatch), []

    def restore(n):
        put_back.append(n)
        queue.now += 5.0

    assert timer.warm(queue.call, torch.device("cuda"), 2, restore) == pytest.approx([0.3e-3] * 2)
    assert put_back == queue.samples == [1, 2, 4, 4, 4]
