"""Work in stages that overlap: each stage runs in a thread of its own, with short queues between them.

What the stages call (FFmpeg, OpenCV, torch, file reading) lets go of the interpreter lock, so they do run at
the same time. The queues bound memory: a stage that is ahead waits.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar, cast

T = TypeVar("T")
U = TypeVar("U")

_POLL_SECONDS = 0.1
"""How often a waiting thread looks whether it is still wanted."""

_END = object()


class Timings:
    """Seconds of work by stage, waiting left out; several threads may report to one."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start)

    def add(self, stage: str, seconds: float) -> None:
        """Add to a stage what was measured elsewhere."""
        with self._lock:
            self._seconds[stage] += seconds

    def timed(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """Iterate, and count what the iterable takes to make its items."""
        iterator = iter(items)
        while True:
            with self.measure(stage):
                item = next(iterator, _END)
            if item is _END:
                return
            yield cast(T, item)

    def seconds(self) -> dict[str, float]:
        """Seconds by stage so far, in the order in which stages first reported."""
        with self._lock:
            return dict(self._seconds)


class Pipeline:
    """Runs stages ahead of whoever consumes the last one; use it in a ``with`` statement.

    ``for item in pipeline.ahead(iterable)`` is ``for item in iterable`` with the iterable in a thread. An
    exception in a stage is raised where its items are consumed, after the items before it. On leaving the
    ``with`` block all threads are told to stop and waited for.

    Args:
        depth: How many items may wait behind each stage.
        stop: Polled while waiting for an item; once true, every stage ends as if its source had.
    """

    def __init__(self, *, depth: int = 2, stop: Callable[[], bool] = lambda: False) -> None:
        self._depth = depth
        self._stop = stop
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join()

    def ahead(self, source: Iterable[T]) -> Iterator[T]:
        """Start a thread that iterates the source, and give out its items in order."""
        line = _Line(queue.Queue(self._depth))
        thread = threading.Thread(target=self._run, args=(source, line), daemon=True)
        self._threads.append(thread)
        thread.start()
        return cast(Iterator[T], self._items(line))

    def _items(self, line: _Line) -> Iterator[object]:
        while (item := self._take(line)) is not _END:
            yield item
        if line.error is not None:
            raise line.error

    def _run(self, source: Iterable[object], line: _Line) -> None:
        try:
            for item in source:
                if not self._put(line, item):
                    return
        except BaseException as error:
            line.error = error
        finally:
            self._put(line, _END)

    def _put(self, line: _Line, item: object) -> bool:
        while not self._closed.is_set():
            try:
                line.items.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def _take(self, line: _Line) -> object:
        while not (self._stop() or self._closed.is_set()):
            try:
                return line.items.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
        return _END


@dataclass
class _Line:
    """What passes from one stage to the next, and what ended it."""

    items: queue.Queue[object]
    error: BaseException | None = None
