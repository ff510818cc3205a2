"""A command that is stopped from outside: by Ctrl-C, or by SIGTERM, as a scheduler does."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_came = False


class Terminated(BaseException):
    """SIGTERM came. Like KeyboardInterrupt no Exception: nothing that handles errors may swallow it."""


def terminated() -> bool:
    """Whether SIGTERM has come: what breaks from then on (a loader's worker, say) breaks because of it."""
    return _came


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Inside the block the first SIGTERM raises `Terminated`, so that mirrors are told and what is kept is said;
    further ones change nothing (`timeout` and schedulers send it to the process and to its group).

    Lightning's own handler, which makes a training end early as if it were done, calls this one too. Where the process
    has another handler already (a launcher's), it stays.
    """
    global _came
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    process = os.getpid()
    _came = False

    def raise_once(number: int, frame: FrameType | None) -> None:
        global _came
        if os.getpid() != process:  # forked: it ends as any process does
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not _came:
            _came = True
            raise Terminated

    signal.signal(signal.SIGTERM, raise_once)
    try:
        yield
    except Exception as error:
        if _came:
            raise Terminated from error
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
