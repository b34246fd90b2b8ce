"""`truncation: "auto"`: the oldest turns of a conversation are dropped where it is too long.

Whole turns are dropped, from one user message to the next, so that no tool's result stands without
its call. The system message stays. What the ledger keeps of the conversation stays whole.
"""

from bisect import bisect_left

from msgspec.structs import replace

from streamtok.api.conversation import Conversation
from streamtok.api.parameters import prompt_ids
from streamtok.api.services import Services
from streamtok.errors import ContextTooLong

ROOM = 4  # one part in so many of the context is kept free for the answer, once turns are dropped


def truncated(services: Services, chat: Conversation) -> Conversation:
    """Return `chat`, without as many of its oldest turns as the context has no room for.

    The last turn stays, even if it is too long by itself.
    """
    context = services.engine.context
    if _fits(services, chat, context):
        return chat
    users = [place for place, message in enumerate(chat.messages) if message.role == "user"]
    system = [message for message in chat.messages[:1] if message.role == "system"]
    shorter = [
        replace(chat, messages=[*system, *chat.messages[place:]])
        for place in users
        if place > len(system)
    ]
    room = context - context // ROOM
    kept = bisect_left(shorter, True, key=lambda cut: _fits(services, cut, room))
    return shorter[min(kept, len(shorter) - 1)] if shorter else chat


def _fits(services: Services, chat: Conversation, tokens: int) -> bool:
    """Whether the prompt has fewer than `tokens`, so that there is room for one more."""
    try:
        most = services.tokenizer.most_characters(tokens)
        return len(prompt_ids(services, chat, most)) < tokens
    except ContextTooLong:
        return False
