"""Calls that block, in threads of their own, for which the end of the process does not wait.

Ray's calls wait for its head node, also when that is gone for good; a thread of asyncio's executor
would then keep a server from ending.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Event, Thread
from typing import TypeVar

Result = TypeVar("Result")


async def apart(call: Callable[[], Result], *, stays: bool = False) -> Result:
    """Return the result of a call, or raise its exception.

    Its thread stays until the process ends if `stays`: what a call has started may end with the
    thread that it was started in (prctl(2), PR_SET_PDEATHSIG).
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def settle(set_outcome: Callable[[], None]) -> None:
        if not done.done():  # somebody still waits
            set_outcome()

    def run() -> None:
        set_outcome: Callable[[], None]
        try:
            set_outcome = partial(done.set_result, call())
        except BaseException as error:
            set_outcome = partial(done.set_exception, error)
        with suppress(RuntimeError):  # the event loop has been closed
            loop.call_soon_threadsafe(settle, set_outcome)
        if stays:
            Event().wait()

    Thread(target=run, daemon=True).start()
    return await done
