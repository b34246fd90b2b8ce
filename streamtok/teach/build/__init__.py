"""Exercises that build: the learner writes a file, and it is run and sent real requests.

They follow the ladder (`streamtok/first/`). Each is a module with its task, its hints, what real
programs did wrong there, and what grades it; `skeletons/` has the files that learners begin with,
`solutions/` those that pass. Read next: `streamtok.teach.build.exercise`.
"""

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
