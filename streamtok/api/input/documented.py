"""Fields that APIs document and that no type here has: which are hints, which are refused."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field


class Documented(Struct, frozen=True):
    """What an API documents besides the fields of its type.

    `hints` have no effect on what is generated: they are accepted. `refused` has, for each field
    that is not supported, the values which ask for nothing (null always does); others are refused,
    with what to use `instead`, if there is anything.
    """

    hints: frozenset[str] = frozenset()
    refused: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)


# Documented by OpenAI or by vLLM, without an effect on what is generated here
HINTS = frozenset(
    {
        "metadata",
        "prediction",  # it can make an answer faster, never another
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "resumable",  # see `streamtok.api.resume`
        "reasoning_effort",  # the model does not think before it answers
        "safety_identifier",
        "service_tier",
        "verbosity",
        # vLLM's
        "cache_salt",  # clients do not share what was computed anyway
        "guided_decoding_backend",
        "include_reasoning",
        "priority",
        "request_id",
        "session_id",
    }
)
# Documented by OpenAI, vLLM, SGLang or llama.cpp, and not supported where no field says so
REFUSED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "web_search_options": (),
    # What would change the answer, so that passing over it would be wrong
    "add_special_tokens": (False,),
    "allowed_token_ids": (),
    "bad_words": ([],),
    "chat_template": (),
    "documents": ([],),
    "ebnf": (),
    "format": (),
    "guided_whitespace_pattern": (),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "logits_processors": ([],),
    "logprob_token_ids": ([],),
    "prompt_logprobs": (),
    "regex": (),
    "structural_tag": (),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
}
INSTEAD = {
    "chat_template": "give the server's model folder another chat_template",
    "ebnf": "use grammar",
    "function_call": "use tool_choice",
    "format": "use response_format",
    "functions": "use tools",
    "prompt_logprobs": "use echo and logprobs with /v1/completions",
    "regex": 'use grammar with the syntax "regex"',
}
OPENAI = Documented(HINTS, REFUSED, INSTEAD)
