"""What requests want their answers to be, as constraints that were compiled.

The room's one entrance: `streamtok.app` gives it to the endpoints. Whether objects are closed, and
whether there is a library to compile with, is decided here.
Read next: `streamtok.api.constraints.structured`.
"""

import asyncio
from collections.abc import Sequence
from functools import partial

from streamtok.api.constraints.structured import constraint
from streamtok.api.constraints.tools import calls_constraint, schemas_in
from streamtok.api.conversation import Wanted
from streamtok.api.services import Constrained
from streamtok.engine.extras.grammars import Grammars
from streamtok.errors import InvalidRequest
from streamtok.messages import Constraint
from streamtok.text.tool_calls.forms import JsonForm
from streamtok.text.tool_calls.template import ToolChatTemplate


class Constraints:
    """Makes constraints; without `grammars` none can be met.

    With `close`, objects have no properties but those that their schemas name. The
    calls of tools have the form that the `template` of their prompt has.
    """

    def __init__(
        self,
        grammars: Grammars | None,
        template: ToolChatTemplate | None = None,
        *,
        close: bool = True,
    ) -> None:
        self._grammars = grammars
        self._template = template
        self._close = close

    @property
    def can_check(self) -> bool:
        """Whether there is what compiles grammars."""
        return self._grammars is not None and self._grammars.can_read

    def make(self, wanted: Wanted) -> Constrained:
        """Return what an answer must be; see `streamtok.api.services.Constraints`."""
        if wanted.tools:
            described = [tool.for_template() for tool in wanted.tools]
            form = self._template.form(described) if self._template else JsonForm()
            whole, parts = calls_constraint(wanted, form, close=self._close)
            reader = partial(form.reader, schemas_in(parts))
            return Constrained(whole, tuple(parts.values()), reader)
        return Constrained(constraint(wanted, close=self._close))

    async def check(self, whole: Constraint, parts: Sequence[Constraint]) -> None:
        """Check that an answer can be that; the event loop stays free meanwhile."""
        if self._grammars is None:
            raise InvalidRequest(
                f"{whole.param}: this server lacks llguidance; pip install 'streamtok[structured]'",
                param=whole.param,
                code="unsupported_parameter",
            )
        try:
            await self._compile(self._grammars, whole)
        except InvalidRequest:
            for part in parts:
                await self._compile(self._grammars, part)
            raise

    @staticmethod
    async def _compile(grammars: Grammars, constraint: Constraint) -> None:
        if grammars.is_compiled(constraint):
            grammars.check(constraint)
        else:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(grammars.compiler, grammars.check, constraint)
