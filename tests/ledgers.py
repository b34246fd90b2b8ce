"""What tests of the ledger record."""

from msgspec.structs import replace

from streamtok.ledger import UsageRecord

DAY_S = 86400.0
RECORD = UsageRecord(
    id="chatcmpl-1",
    created_s=0.0,
    key="alice",
    endpoint="/v1/chat/completions",
    model="tiny",
    stream=True,
    prompt_tokens=10,
    generated_tokens=4,
    delivered_tokens=3,
    finish_reason="stop",
    first_token_s=0.25,
    duration_s=1.5,
    cached_tokens=7,
    queued_s=0.05,
    prefill_s=0.15,
)
RECORDS = (
    RECORD,
    replace(RECORD, id="chatcmpl-2", created_s=3600.0, key="bob", finish_reason="length"),
    replace(RECORD, id="cmpl-3", created_s=DAY_S, endpoint="/v1/completions", prompt_tokens=1),
    replace(RECORD, id="chatcmpl-4", created_s=DAY_S + 1, model="other", delivered_tokens=0),
)
