"""On what the tasks of a sweep are computed: the seam, this process, and processes of this machine.

What comes back is by the number of the task, in the order of ending; a task gives the same rows wherever it
runs. docs/architecture.md says why processes of one machine are not Dask's.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Final

from orchestrator.errors import InfrastructureError
from orchestrator.store.machine_code import keep_code
from orchestrator.sweep.tasks import Row, SweepTask

_PR_SET_PDEATHSIG: Final = 1  # include/uapi/linux/prctl.h


class Engine(ABC):
    """Runs tasks."""

    @abstractmethod
    def run(self, tasks: Sequence[SweepTask]) -> Iterator[tuple[int, list[Row]]]:
        """Number and rows of each task, as they end. Raises OrchestratorError; what runs then is ended."""


class InProcess(Engine):
    """One task after the other, here."""

    def __init__(self, compiled: Path) -> None:
        """`compiled`: the folder of compiled code."""
        self._compiled = compiled

    def run(self, tasks: Sequence[SweepTask]) -> Iterator[tuple[int, list[Row]]]:
        keep_code(self._compiled)
        for number, task in enumerate(tasks):
            yield number, task.rows()


class Processes(Engine):
    """As many at once as there are processes. Each compiles once, or finds in `compiled` what others have."""

    def __init__(self, compiled: Path, processes: int) -> None:
        self._compiled = compiled
        self._processes = processes

    def run(self, tasks: Sequence[SweepTask]) -> Iterator[tuple[int, list[Row]]]:
        pool = pool_of(self._compiled, min(self._processes, max(1, len(tasks))))
        try:
            numbers: dict[Future[list[Row]], int] = {
                pool.submit(task.rows): number for number, task in enumerate(tasks)
            }
            for ended in as_completed(numbers):
                yield numbers[ended], ended.result()
        except BrokenProcessPool as error:
            raise InfrastructureError(
                "a process of the sweep was killed",
                hint="was it out of memory? dmesg   and fewer at once: --processes 1",
            ) from error
        except BaseException:
            end_pool(pool)  # what has begun is not needed any more
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def pool_of(compiled: Path, processes: int) -> ProcessPoolExecutor:
    """Processes for tasks, which end with the thread that gave them the first one."""
    # Fresh interpreters: a fork would copy threads' locks, of OpenBLAS and of progress, but no threads.
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        processes, mp_context=spawn, initializer=_begin, initargs=(compiled, os.getpid())
    )


def end_pool(pool: ProcessPoolExecutor) -> None:
    """End its processes, whatever they do."""
    for process in list((pool._processes or {}).values()):  # noqa: SLF001  # terminate_workers() is of Python 3.14
        process.terminate()


def _begin(compiled: Path, parent: int) -> None:
    """In a fresh process: Ctrl-C is the first one's affair, and with its end this one ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    keep_code(compiled)
