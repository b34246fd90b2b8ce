"""Reads requests as clients send them, each with what its API documents beside the fields here."""

from streamtok.api import validation
from streamtok.api.anthropic import types as anthropic
from streamtok.api.input.documented import OPENAI, Documented
from streamtok.api.input.validation import convert, read_object
from streamtok.api.openai.types import ChatRequest, CompletionRequest
from streamtok.api.responses import types as responses
from streamtok.api.validation import Kind

MOST_VALUES = 2**17  # in a body, where the context is not larger still
NOTHING = Documented()
DOCUMENTED: dict[type, Documented] = {
    ChatRequest: OPENAI,
    CompletionRequest: OPENAI,
    responses.ResponseRequest: responses.DOCUMENTED,
    responses.InputTokensRequest: responses.DOCUMENTED,
    anthropic.MessageRequest: anthropic.DOCUMENTED,
    anthropic.CountRequest: anthropic.DOCUMENTED,
}


class BodyReader(validation.BodyReader):
    """Reads bodies of at most so many values: those of a prompt as long as the `context`."""

    def __init__(self, context: int) -> None:
        self._most = max(MOST_VALUES, 2 * context)

    def read(self, body: bytes, kind: type[Kind]) -> tuple[Kind, tuple[str, ...]]:
        """See `validation.BodyReader.read`."""
        return convert(read_object(body, self._most), kind, DOCUMENTED.get(kind, NOTHING))
