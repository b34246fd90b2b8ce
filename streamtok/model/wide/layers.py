"""One pass with many rows, layer by layer: threads share these, and attention, instead of panels.

In each layer attention is computed by all threads, and whatever the layer's matrices need; then
every part of the rows is brought through the rest of this layer and, in the next, as far as its
queries, keys and values. So all threads meet twice a layer. A part runs through the decoder's own
methods, with views of its rows and with matrices that one thread multiplies by. Sequences that
decode with large weights are one part: each thread would else read all weights for half of them.

Read next: `streamtok.model.wide.product`.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from streamtok.model.attention import Positions, Rows
from streamtok.model.batch import Batch
from streamtok.model.decoder import Layer, LlamaDecoder, Workspace
from streamtok.model.exact.linear import Threads
from streamtok.model.weights import Array
from streamtok.model.wide.attention import Part, WideAttention
from streamtok.model.wide.product import Room, cut_rows

LEAST = 48  # rows of a pass that is worth it
STREAMS = 24  # sequences of a FREE pass that is, too: threads share attention to them
WHOLE = 64  # rows of sequences that decode: with fewer each thread would read too much of weights
MOST = 264  # rows of a part: with fewer, the calls of numpy cost more than what caches keep saves
LOOK = 64  # positions of a prompt whose small products of attention are one piece of work
PART = 24  # rows of a part at least: whoever gets less would wait longer than compute

Task = Callable[[], None]
BEFORE, AFTER = ("qkv",), ("out", "gate_up", "down")  # the matrices before attention, and after


class Matrices(Protocol):
    """The matrices of each layer, for products of many rows in one thread."""

    granule: int  # what the rows of a part are a multiple of
    most: int  # rows of a part

    def layer(self, index: int) -> Layer:
        """Return a layer with these matrices."""

    def tasks(self, index: int, names: tuple[str, ...]) -> list[Task]:
        """Return what has to be done before those called `names` of a layer are used."""


class WideLayers:
    """Computes the layers of a decoder, for `LEAST` rows or `STREAMS` sequences, or more."""

    def __init__(
        self,
        decoder: LlamaDecoder,
        matrices: Matrices,
        whole: Matrices | None,
        threads: Threads,
        long: bool,
    ) -> None:
        """Use `matrices`, and for sequences that decode `whole` ones, if there are any.

        Their products are shared among threads, instead of rows. `long` says that wide attention is
        exact here.
        """
        self._decoder = decoder
        self._matrices, self._whole = matrices, whole
        self._long = long
        self._threads = threads
        self._room = Room()

    def __call__(self, batch: Batch, space: Workspace) -> bool:
        """Bring the residual stream of `space` through all layers; False if the rows are few."""
        streams = sum(len(segment.ids) for _, segment in batch.parts)
        few = streams < STREAMS or not self._decoder.tiling.free
        if batch.padded < LEAST and few:
            return False
        if self._whole and batch.rows == streams < WHOLE:
            matrices, rows = self._whole, iter([slice(0, batch.padded)])
        else:
            count, matrices = self._threads.count, self._matrices
            most = max(PART, min(matrices.most, -(-batch.padded // count)))
            rows = cut_rows(batch.padded, matrices.granule, most, count)
        parts = [(some, space.part(some)) for some in rows]
        looks = self._looks(batch, space)
        last = len(self._decoder.layers) - 1

        def project(index: int, rows: slice, space: Workspace) -> None:
            self._decoder.project(matrices.layer(index), space)
            batch.store(index, space.heads, rows)

        def close(index: int, rows: slice, space: Workspace) -> None:
            self._decoder.close(matrices.layer(index), space)
            if index < last:
                project(index + 1, rows, space)

        self._share(matrices.tasks(0, BEFORE))
        self._share([partial(project, 0, *part) for part in parts])
        for index in range(last + 1):
            tasks = matrices.tasks(index, AFTER)
            tasks += matrices.tasks(index + 1, BEFORE) if index < last else []
            self._share([partial(look, index) for look in looks] + tasks)
            self._share([partial(close, index, *part) for part in parts])
        return True

    def _looks(self, batch: Batch, space: Workspace) -> list[Callable[[int], None]]:
        """Return what computes attention, all of it together, when called with a layer's index."""
        config = self._decoder.config
        wide = WideAttention(config, self._decoder.tiling, self._room)
        queries = space.heads[:, : config.heads]  # [rows, H, E]
        looks: list[Callable[[int], None]] = []

        def look(part: Part, layer: int) -> None:
            window = config.window_of(layer)
            wide.attend(part, batch.cache.layers[layer], queries, space.gathered, window)

        for index, (rows, segment) in enumerate(batch.parts):
            start = int(segment.positions[0, 0])
            alone = len(segment.ids) == 1
            if self._long and alone and wide.pays(segment.ids.size, start):
                parts = wide.parts(rows, segment.slots.start, start, self._threads.count)
                looks += [partial(look, part) for part in parts]
            else:
                looks += self._small_looks(batch, index, queries, space.gathered)
        return looks

    def _small_looks(
        self, batch: Batch, index: int, queries: Array, out: Array
    ) -> list[Callable[[int], None]]:
        """Return the same for a part of the batch whose attention is in small products.

        A prompt is cut, so that what comes after all positions of a piece is not computed for it;
        sequences that decode are shared among threads.
        """
        config, tiling = self._decoder.config, self._decoder.tiling
        part, segment = batch.parts[index]
        count, length = segment.ids.shape

        def look(
            slots: slice, positions: Positions, rows: slice, room: list[Rows], layer: int
        ) -> None:
            if not room:  # made by the thread that first needs it
                room.append(Rows(config, tiling, slots, positions))
            cached, window = batch.cache.layers[layer], config.window_of(layer)
            room[0].attend(cached, queries[rows], out[rows], window)

        looks: list[Callable[[int], None]] = []
        if count == 1:
            for first in reversed(range(0, length, LOOK)):  # the longest first
                positions = segment.positions[:, first : first + LOOK]
                rows = slice(part.start + first, part.start + first + positions.size)
                looks.append(partial(look, segment.slots, positions, rows, []))
        else:
            for some in cut_rows(count, 1, -(-count // self._threads.count)):
                slots = slice(segment.slots.start + some.start, segment.slots.start + some.stop)
                rows = slice(part.start + some.start * length, part.start + some.stop * length)
                looks.append(partial(look, slots, segment.positions[some], rows, []))
        return looks

    def _share(self, tasks: list[Task]) -> None:
        if len(tasks) < 2 or self._threads.count == 1:
            for task in tasks:
                task()
        else:
            self._threads.share(range(len(tasks)), lambda index: tasks[index]())
