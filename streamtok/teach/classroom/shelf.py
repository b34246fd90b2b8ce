"""What lessons show, measured once for all learners on a server of its own."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack

from streamtok.teach.lessons.lab import Lab, open_lab
from streamtok.teach.lessons.lesson import Block, Lesson


class Shelf:
    """The lessons' blocks; the server they are measured on is started when one is asked for."""

    def __init__(self) -> None:
        self._blocks: dict[str, list[Block]] = {}
        self._lab: Lab | None = None
        self._stack = ExitStack()
        self._turn = asyncio.Lock()  # one measurement at a time: two would disturb each other

    async def blocks(self, lesson: Lesson) -> list[Block]:
        """Return what `lesson` shows. Raises StreamtokError."""
        if lesson.name not in self._blocks:
            found = await self._measure(lambda lab: list(lesson.show(lab)))
            self._blocks.setdefault(lesson.name, found)
        return self._blocks[lesson.name]

    async def change(self, lesson: Lesson, given: str) -> list[Block]:
        """Return what `lesson` shows of what a learner typed. Raises Mistake, StreamtokError."""
        return await self._measure(lambda lab: list(lesson.change(lab, given)))

    async def close(self) -> None:
        """Stop the server."""
        async with self._turn:
            await asyncio.to_thread(self._stack.close)

    async def _measure(self, act: Callable[[Lab], list[Block]]) -> list[Block]:
        async with self._turn:
            if self._lab is None:
                self._lab = await asyncio.to_thread(self._stack.enter_context, open_lab())
            return await asyncio.to_thread(act, self._lab)
