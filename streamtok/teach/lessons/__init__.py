"""The lessons, in order. Each is a module: what it shows, what it asks, what may be changed.

All bytes and times in them come from the live server (`streamtok.teach.lessons.lab`), and so do the
answers to their questions, wherever these are numbers.
"""

from streamtok.teach.lessons import (
    backpressure,
    cache,
    cancellation,
    chunks,
    events,
    forward,
    length,
    pipelining,
    prefill,
    request,
    sampling,
    survival,
    tokens,
    trailers,
)
from streamtok.teach.lessons.lesson import Lesson

LESSONS: tuple[Lesson, ...] = (
    request.LESSON,
    chunks.LESSON,
    length.LESSON,
    events.LESSON,
    tokens.LESSON,
    prefill.LESSON,
    cache.LESSON,
    sampling.LESSON,
    pipelining.LESSON,
    backpressure.LESSON,
    cancellation.LESSON,
    trailers.LESSON,
    survival.LESSON,
    forward.LESSON,
)
