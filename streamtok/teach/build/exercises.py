"""All exercises, in order."""

from streamtok.teach.build import chunked, clients, doctored, events, reader, sampled
from streamtok.teach.build.exercise import Exercise

EXERCISES: tuple[Exercise, ...] = (
    chunked.EXERCISE,
    events.EXERCISE,
    reader.EXERCISE,
    sampled.EXERCISE,
    clients.EXERCISE,
    doctored.EXERCISE,
)
