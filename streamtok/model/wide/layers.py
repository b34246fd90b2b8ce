"""One pass with many positions, layer by layer: threads share positions instead of panels.

In each layer the panels of its matrices are joined, then every part of the rows is brought as far
as its queries, keys and values, then attention is computed, then the rest: four times all threads
meet. A part runs through the decoder's own methods, with views of its rows and with the joined
matrices in place of the narrow ones.

Read next: `streamtok.model.wide.product`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from streamtok.model.batch import Batch
from streamtok.model.decoder import Layer, LlamaDecoder, Workspace
from streamtok.model.exact.linear import Linear, Threads
from streamtok.model.weights import Array
from streamtok.model.wide.attention import Part, WideAttention
from streamtok.model.wide.form import TWELVE, Form
from streamtok.model.wide.product import ROWS, Room, WideMatrix, cut_rows

LEAST = 48  # rows of a pass that is worth it
PART = 24  # rows of a part at least: whoever gets less would wait longer than compute
MATRICES = ("qkv", "out", "gate_up", "down")  # of a layer


class WideLayers:
    """Computes the layers of a decoder, for `LEAST` rows or more."""

    def __init__(
        self, decoder: LlamaDecoder, forms: Mapping[int, Form], threads: Threads, long: bool
    ) -> None:
        """Use `forms` by the number of terms; `long` says that wide attention is exact here."""
        self._decoder = decoder
        self._long = long
        self._forms = forms
        self._threads = threads
        self._room = Room()
        self._matrices: dict[str, WideMatrix] = {}  # made when they are first of use

    def __call__(self, batch: Batch, space: Workspace) -> bool:
        """Bring the residual stream of `space` through all layers; False if the rows are few."""
        if batch.padded < LEAST:
            return False
        count = self._threads.count
        if not self._matrices:
            self._matrices = {name: self._matrix(name) for name in MATRICES}
        most = max(PART, min(ROWS, -(-batch.padded // count)))
        rows = list(cut_rows(batch.padded, TWELVE, most, count))
        parts = [(some, space.part(some)) for some in rows]
        looks = self._looks(batch, space)
        for index in range(len(self._decoder.layers)):
            self._compute(index, batch, parts, looks)
        return True

    def _compute(
        self,
        index: int,
        batch: Batch,
        parts: list[tuple[slice, Workspace]],
        looks: list[Callable[[int], None]],
    ) -> None:
        """Compute one layer."""
        narrow, one = self._decoder.layers[index], self._matrices
        layer = replace(
            narrow, qkv=one["qkv"], out=one["out"], gate_up=one["gate_up"], down=one["down"]
        )

        def project(part: int) -> None:
            rows, space = parts[part]
            self._decoder.project(layer, space)
            batch.store(index, space.heads, rows)

        self._join(narrow)
        self._share(len(parts), project)
        self._share(len(looks), lambda look: looks[look](index))
        self._share(len(parts), lambda part: self._decoder.close(layer, parts[part][1]))

    def _matrix(self, name: str) -> WideMatrix:
        """Return room for the matrices called `name`, which are alike in all layers."""
        count, inner, panel = _panels(self._decoder.layers[0], name).shape
        return WideMatrix(self._forms[inner], inner, count * panel, self._room)

    def _join(self, layer: Layer) -> None:
        """Join the panels of the matrices of `layer`."""
        pieces = [(name, i) for name, one in self._matrices.items() for i in range(one.pieces)]

        def join(piece: int) -> None:
            name, index = pieces[piece]
            self._matrices[name].join(index, _panels(layer, name))

        self._share(len(pieces), join)

    def _looks(self, batch: Batch, space: Workspace) -> list[Callable[[int], None]]:
        """Return what computes attention, all of it together, when called with a layer's index."""
        config = self._decoder.config
        wide = WideAttention(config, self._room)
        queries = space.heads[:, : config.heads]  # [rows, H, E]
        looks: list[Callable[[int], None]] = []

        def look(part: Part, layer: int) -> None:
            window = config.window_of(layer)
            wide.attend(part, batch.cache.layers[layer], queries, space.gathered, window)

        for index, (rows, segment) in enumerate(batch.parts):
            if self._long and len(segment.ids) == 1 and segment.ids.size >= PART:
                start = int(segment.positions[0, 0])
                parts = wide.parts(rows, segment.slots.start, start, self._threads.count)
                looks += [partial(look, part) for part in parts]
            else:
                looks.append(partial(batch.attend_part, index, space.heads, space.gathered))
        return looks

    def _share(self, count: int, work: Callable[[int], None]) -> None:
        if count == 1 or self._threads.count == 1:
            for part in range(count):
                work(part)
        else:
            self._threads.share(range(count), work)


def _panels(layer: Layer, name: str) -> Array:
    """Return those of one matrix of `layer`: [P, in, panel]."""
    linear = getattr(layer, name)
    assert isinstance(linear, Linear)
    return linear.panels
