"""Threads of a fit sleep while they wait on busy cores. The kernel counts how often threads slept; no clock decides."""

import os
import resource
import subprocess
import sys
import threading
import time

import pytest
import torch

import mmphate_gpu as mp
from mmphate_gpu.runtime import busy_cores
from mmphate_gpu.runtime.busy_cores import CHOICES, DELAYED, Reading, add_idle_team, cores_are_busy, sharing_cores
from mmphate_gpu.runtime.memory_limits import Limit

CPU = torch.device("cpu")
on_linux = pytest.mark.skipif(not busy_cores._gnu_openmp(), reason="needs Linux and GNU OpenMP")


@pytest.fixture
def two_threads(monkeypatch):
    for name in CHOICES:
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def always_busy(monkeypatch):
    """Every reading finds busy cores at once, and the list gets the size of every idle team."""
    teams = []
    added = threading.Event()
    monkeypatch.setattr(busy_cores, "PERIOD", 0.001)
    monkeypatch.setattr(busy_cores, "cores_are_busy", lambda before, now: True)

    def record(n_threads):
        teams.append(n_threads)
        add_idle_team(n_threads)
        added.set()

    monkeypatch.setattr(busy_cores, "add_idle_team", record)
    return teams, added


def watchers():
    return [thread for thread in threading.enumerate() if thread.name == "busy cores"]


@pytest.mark.parametrize(
    ("delays", "busy"),
    [
        ({"1": 7.0, "2": 1.0}, False),  # nothing waited
        ({"1": 7.0 + DELAYED - 0.01, "2": 1.0 + DELAYED - 0.01}, False),  # each a little: this is no sum
        ({"1": 7.0, "2": 1.0 + DELAYED + 0.01}, True),  # all threads wait for the slowest
        ({"1": 7.0, "3": 9.0}, False),  # a thread that is new has no earlier reading
        ({}, False),  # a kernel that does not count
    ],
)
def test_cores_are_busy_if_a_single_thread_waits_for_long(delays, busy):
    assert cores_are_busy(Reading(10.0, {"1": 7.0, "2": 1.0}), Reading(11.0, delays)) is busy


@on_linux
def test_a_reading_has_every_thread_of_the_process():
    assert str(threading.get_native_id()) in busy_cores.reading().delays
    assert set(busy_cores.reading().delays) >= {str(thread.native_id) for thread in threading.enumerate()}


def sleeps_of_a_pool():
    """How often threads slept while 200 small regions ran one after another."""
    ones = torch.ones(1 << 16, device="cpu")
    ones.add_(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    for _ in range(200):
        ones.add_(1)
        until = time.perf_counter() + 2e-4
        while time.perf_counter() < until:
            pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before


@on_linux
def test_an_idle_team_lets_waiting_threads_sleep_until_its_thread_ends(two_threads):
    added, done = threading.Event(), threading.Event()
    n_threads = max(2, busy_cores.n_cores())

    def hold():
        add_idle_team(n_threads)
        added.set()
        done.wait()

    sleeps_of_a_pool()
    n_tasks = len(os.listdir(busy_cores.TASKS))
    holder = threading.Thread(target=hold)
    holder.start()
    added.wait()
    assert len(os.listdir(busy_cores.TASKS)) == n_tasks + n_threads
    # The worker sleeps after nearly all of the regions, because it would find no work within its few spins.
    assert sleeps_of_a_pool() > 100
    done.set()
    holder.join()
    until = time.monotonic() + 30
    while len(os.listdir(busy_cores.TASKS)) > n_tasks and time.monotonic() < until:
        time.sleep(0.01)  # the kernel takes the threads of the team off its list a little later
    assert len(os.listdir(busy_cores.TASKS)) == n_tasks


@on_linux
def test_a_team_is_held_while_cores_are_busy_and_no_thread_is_left(two_threads, always_busy):
    teams, added = always_busy
    with sharing_cores(CPU):
        assert added.wait(30)
        assert watchers()
    assert teams == [max(2, busy_cores.n_cores())]
    assert not watchers()


@on_linux
def test_no_team_is_added_on_a_quiet_machine(two_threads, always_busy, monkeypatch):
    teams, _ = always_busy
    seen = threading.Event()
    monkeypatch.setattr(busy_cores, "cores_are_busy", lambda before, now: seen.set())
    with sharing_cores(CPU):
        assert seen.wait(30)
    assert not teams


@on_linux
def test_the_team_ends_when_the_cores_are_free(two_threads, always_busy, monkeypatch):
    teams, added = always_busy
    answers = iter([True, False])
    rest = threading.Event()

    def scripted(before, now):
        answer = next(answers, None)
        if answer is None:
            rest.set()
        return bool(answer)

    monkeypatch.setattr(busy_cores, "QUIET_PERIOD", 0.001)
    monkeypatch.setattr(busy_cores, "cores_are_busy", scripted)
    with sharing_cores(CPU):
        assert rest.wait(30)
        assert len(watchers()) == 1  # the watch goes on, without the thread that held the team
    assert len(teams) == 1


@pytest.mark.parametrize("name", CHOICES)
def test_the_choice_of_the_user_stays(two_threads, monkeypatch, name):
    monkeypatch.setenv(name, "100")
    with sharing_cores(CPU):
        assert not watchers()


@on_linux
def test_no_thread_is_added_under_a_limit_on_the_address_space(two_threads, monkeypatch):
    with sharing_cores(CPU):
        assert watchers()
    monkeypatch.setattr(busy_cores, "resource_limits", lambda: iter([Limit(2**30, "RLIMIT_AS (ulimit -v)", 2**31)]))
    with sharing_cores(CPU):
        assert not watchers()


def test_nothing_is_watched_without_partners_to_wait_for(two_threads):
    with sharing_cores(torch.device("cuda")):
        assert not watchers()
    torch.set_num_threads(1)
    with sharing_cores(CPU):
        assert not watchers()


@on_linux
@pytest.mark.parametrize("n_allowed", [0, 1, 2, 3, 4])
def test_a_limit_on_threads_is_no_error(two_threads, always_busy, monkeypatch, n_allowed):
    """The watch and the thread that holds the team start, and then as many as the team of 3 takes, or none is added."""
    teams, added = always_busy
    refused, start = threading.Event(), threading.Thread.start

    def limited(thread):
        if len(watchers()) >= n_allowed:
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    monkeypatch.setattr(busy_cores, "n_cores", lambda: 3)
    with sharing_cores(CPU):
        assert (added if n_allowed == 4 else refused).wait(30)
    assert teams == ([3] if n_allowed == 4 else [])
    assert not watchers()


@on_linux
def test_an_error_of_the_computation_ends_the_watch(two_threads, always_busy):
    with pytest.raises(KeyError), sharing_cores(CPU):
        raise KeyError("x")
    assert not watchers()


@on_linux
def test_a_fit_has_the_same_bits_beside_an_idle_team(two_threads, always_busy, monkeypatch):
    teams, _ = always_busy
    trace = mp.datasets.random_walk(40, 12, 8, seed=0)
    fit = lambda: mp.MMPHATE(n_landmark=200, random_state=0, device="cpu").fit(trace).embedding_  # noqa: E731
    beside = fit()
    assert teams
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    n_teams = len(teams)
    alone = fit()
    assert len(teams) == n_teams
    assert (beside == alone).all()


EXIT = """
import threading, torch
from mmphate_gpu.runtime import busy_cores
torch.set_num_threads(2)
added = threading.Event()
busy_cores.PERIOD = 0.001
busy_cores.cores_are_busy = lambda before, now: True
add = busy_cores.add_idle_team
busy_cores.add_idle_team = lambda *arguments: (add(*arguments), added.set())

def compute():
    with busy_cores.sharing_cores(torch.device("cpu")):
        threading.Event().wait()

threading.Thread(target=compute, daemon=True).start()
assert added.wait(30)
"""


@on_linux
def test_the_process_may_end_within_a_computation():
    environment = {name: value for name, value in os.environ.items() if name not in CHOICES}
    done = subprocess.run([sys.executable, "-c", EXIT], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
