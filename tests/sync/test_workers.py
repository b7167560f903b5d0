"""Threads that are used again."""

from __future__ import annotations

import os
import threading
import weakref

import pytest

from .serving import TIMEOUT, eventually


@pytest.fixture
def workers(fd):
    pool = fd.sync.workers.Workers("test worker")
    yield pool
    pool.stop()
    assert pool.wait(TIMEOUT)
    assert not [t for t in threading.enumerate() if t.name == "test worker"]


class Task:
    """A task that lasts until it is released."""

    def __init__(self) -> None:
        self.started, self.release, self.done = (threading.Event() for _ in range(3))
        self.thread: threading.Thread | None = None

    def __call__(self, *args):
        self.thread = threading.current_thread()
        self.args = args
        self.started.set()
        assert self.release.wait(TIMEOUT)
        self.done.set()


def test_runs_with_arguments(workers):
    task = Task()
    task.release.set()
    workers.run(task, 1, 2)
    assert task.done.wait(TIMEOUT)
    assert task.args == (1, 2)
    assert task.thread.name == "test worker"
    assert task.thread.daemon


def test_tasks_at_once_have_threads_of_their_own(workers):
    tasks = [Task() for _ in range(5)]
    for task in tasks:
        workers.run(task)
    for task in tasks:
        assert task.started.wait(TIMEOUT)
        task.release.set()
    assert len({task.thread for task in tasks}) == 5


def test_threads_are_used_again(workers):
    threads = set()
    for _ in range(20):
        task = Task()
        task.release.set()
        workers.run(task)
        assert task.done.wait(TIMEOUT)
        threads.add(task.thread)
        eventually(lambda: workers._idle)
    assert len(threads) == 1


def test_idle_threads_end(fd, workers, monkeypatch):
    monkeypatch.setattr(fd.sync.workers, "IDLE_TIME", 0.01)
    task = Task()
    task.release.set()
    workers.run(task)
    assert task.done.wait(TIMEOUT)
    task.thread.join(TIMEOUT)
    assert not task.thread.is_alive()
    assert not workers._idle
    # And the next task gets a new one.
    task = Task()
    task.release.set()
    workers.run(task)
    assert task.done.wait(TIMEOUT)


def test_task_that_comes_as_the_time_is_over(fd, workers, monkeypatch):
    """Many times over, so that the end of the time and the next task meet."""
    monkeypatch.setattr(fd.sync.workers, "IDLE_TIME", 0.0005)
    ran = threading.Semaphore(0)
    pause = threading.Event()
    for number in range(500):
        workers.run(ran.release)
        assert ran.acquire(timeout=TIMEOUT), number
        pause.wait(0.0001 * (number % 10))


def test_task_given_to_a_worker_whose_time_is_over(fd):
    """The same, step by step: it is taken after it gave up waiting, before it could leave."""
    pool = fd.sync.workers.Workers("test worker")
    worker = fd.sync.workers.Worker()

    class Wakeup:
        def __init__(self, lock):
            self.lock = lock

        def acquire(self, timeout=-1):
            if timeout == -1:
                return self.lock.acquire()
            assert pool._idle.popitem()[0] is worker  # what run() does
            worker.task = (print, ())
            self.lock.release()
            return False

    worker.wakeup = Wakeup(worker.wakeup)
    assert pool._park(worker) is True
    assert not pool._idle


def test_failure_of_a_task_ends_its_thread_only(workers, monkeypatch):
    failed = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda args: failed.set())

    def task():
        raise LookupError

    workers.run(task)
    assert failed.wait(TIMEOUT)
    eventually(lambda: not workers._alive)
    assert not workers._busy


def test_thread_that_cannot_start(workers, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError):
            workers.run(print)
    assert not workers._busy
    assert not workers._alive


def test_starting_a_thread_is_interrupted(workers, monkeypatch):
    """By Ctrl-C, when it runs already: it does its work, and does not fail for being on no list."""
    failures = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    start = threading.Thread.start

    def interrupted(thread):
        start(thread)
        raise KeyboardInterrupt

    task = Task()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            workers.run(task)
    task.release.set()
    assert task.done.wait(TIMEOUT)
    eventually(lambda: workers._idle)
    again = Task()
    again.release.set()
    workers.run(again)
    assert again.done.wait(TIMEOUT)
    assert again.thread is task.thread
    workers.stop()
    task.thread.join(TIMEOUT)
    assert not failures


def test_wait_is_for_threads_that_are_busy(workers):
    task = Task()
    workers.run(task)
    assert task.started.wait(TIMEOUT)
    workers.stop()
    assert not workers.wait(0.02)
    task.release.set()
    assert workers.wait(TIMEOUT)


def test_wait_in_a_task_leaves_itself_out(workers):
    results = []
    done = threading.Event()

    def task():
        results.append(workers.in_task())
        workers.stop()
        results.append(workers.wait(TIMEOUT))
        done.set()

    workers.run(task)
    assert done.wait(TIMEOUT)
    assert results == [True, True]
    assert not workers.in_task()


def test_tasks_after_stop_still_run(workers):
    """A connection may have been accepted just before."""
    workers.stop()
    done = threading.Event()
    workers.run(done.set)
    assert done.wait(TIMEOUT)


def test_idle_threads_keep_nothing_alive(workers):
    task = Task()
    task.release.set()
    reference = weakref.ref(task)
    workers.run(task)
    assert task.done.wait(TIMEOUT)
    eventually(lambda: workers._idle)
    del task
    eventually(lambda: reference() is None)


def test_daemon_threads_may_be_forbidden(fd, monkeypatch):
    """As in some subinterpreters."""
    real = threading.Thread

    def make(*args, daemon=None, **kwargs):
        if daemon:
            raise RuntimeError("daemon threads are disabled in this interpreter")
        return real(*args, daemon=daemon, **kwargs)

    monkeypatch.setattr(threading, "Thread", make)
    thread = fd.sync.workers.make_thread(print, "x")
    assert thread.daemon is False


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="there is no SCHED_BATCH")
def test_threads_of_many_tasks_give_way(fd, workers):
    """From the eighth on; and no other threads."""
    ready, policies = threading.Barrier(13), {}

    def task(number):
        policies[number] = os.sched_getscheduler(0)
        ready.wait(TIMEOUT)

    before = os.sched_getscheduler(0)
    for number in range(12):
        workers.run(task, number)
        eventually(lambda number=number: number in policies)
    ready.wait(TIMEOUT)
    assert [policies[number] for number in range(12)] == [os.SCHED_OTHER] * 7 + [os.SCHED_BATCH] * 5
    assert os.sched_getscheduler(0) == before


def test_giving_way_is_left_alone_where_it_cannot_be(fd, monkeypatch):
    module = fd.sync.workers
    assert not module.give_way()  # in the main thread

    def forbidden(*args):
        raise PermissionError

    answers = []
    monkeypatch.setattr(module.os, "sched_setscheduler", forbidden, raising=False)
    thread = threading.Thread(target=lambda: answers.append(module.give_way()))
    thread.start()
    thread.join()
    assert answers == [False]


@pytest.mark.parametrize("filtered", [False, True])
def test_giving_way_is_a_matter_of_choice_under_a_filter(fd, monkeypatch, filtered):
    """Of system calls: it may kill the process for unusual ones."""
    module = fd.sync.workers
    monkeypatch.setattr(module, "filtered", lambda: filtered)
    assert module.batch_from(3) == 3
    assert module.batch_from(0) == 0
    assert module.batch_from(-1) == (0 if filtered or not hasattr(os, "SCHED_BATCH") else 8)


class Trap(dict):
    """The idle workers, with something that happens just after one was taken out of them."""

    def __init__(self, idle, sprung):
        super().__init__(idle)
        self.sprung = sprung
        self.armed = True

    def __delitem__(self, worker):
        super().__delitem__(worker)
        if self.armed:
            self.armed = False
            self.sprung()


def idle_worker(workers):
    """Have one worker, which is idle."""
    done = threading.Event()
    workers.run(done.set)
    assert done.wait(TIMEOUT)
    eventually(lambda: len(workers._idle) == 1)


def test_shutting_down_in_the_midst_of_handing_over(workers):
    """As a signal's handler may: what is handed over begins only after it."""
    idle_worker(workers)
    waited = []

    def shut_down():
        workers.stop()
        waited.append(workers.wait(TIMEOUT))

    workers._idle = Trap(workers._idle, shut_down)
    done = threading.Event()
    workers.run(done.set)
    assert waited == [True]
    assert done.wait(TIMEOUT)


def test_shutting_down_before_a_thread_has_started(workers, monkeypatch):
    waited = []
    start = threading.Thread.start

    def interrupted(thread):
        workers.stop()
        waited.append(workers.wait(TIMEOUT))
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    done = threading.Event()
    workers.run(done.set)
    assert waited == [True]
    assert done.wait(TIMEOUT)


def test_task_that_waits_is_not_waited_for_by_another(workers):
    both = threading.Barrier(2)
    waited = []

    def task():
        both.wait(TIMEOUT)
        workers.stop()
        waited.append(workers.wait(TIMEOUT))

    workers.run(task)
    workers.run(task)
    assert workers.wait(TIMEOUT)
    assert waited == [True, True]


def test_waiting_in_a_signal_handler_that_interrupts_waiting(workers):
    workers.stop()
    with workers._ended:
        assert workers.wait(TIMEOUT)
