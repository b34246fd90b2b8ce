"""Sums over the ledger's rows, for `GET /v1/usage`."""

from msgspec import Struct

from streamtok.ledger import DATES, Ledger

COLUMNS = ("key", "model", "endpoint", "finish_reason")
GROUPS = (*COLUMNS, *DATES)  # what rows may be grouped by


class UsageSum(Struct, frozen=True):
    """Sums over the requests of one group; `group` is empty where nothing was grouped."""

    group: str
    requests: int
    prompt_tokens: int
    generated_tokens: int
    delivered_tokens: int


class UsageFilter(Struct, frozen=True):
    """Which requests to sum: created from `since_s` until before `until_s`, by `key`."""

    since_s: float | None = None
    until_s: float | None = None
    key: str | None = None


async def sum_usage(ledger: Ledger, where: UsageFilter, group_by: str | None) -> list[UsageSum]:
    """Return sums over the rows that match; one per value of `group_by`, which is in GROUPS.

    Raises:
        Unavailable: the ledger's database cannot be read now.
    """
    conditions = [
        (clause, value)
        for clause, value in (
            ("created_s >= ?", where.since_s),
            ("created_s < ?", where.until_s),
            ("key = ?", where.key),
        )
        if value is not None
    ]
    clause = " AND ".join(text for text, _ in conditions) or "TRUE"
    group = "''" if group_by is None else ledger.database.dates.get(group_by, group_by)
    counts = "count(*), sum(prompt_tokens), sum(generated_tokens), sum(delivered_tokens)"
    query = f"SELECT {group} AS name, {counts} FROM usage WHERE {clause} GROUP BY name"
    rows = await ledger.database.run((query, tuple(value for _, value in conditions)))
    return [UsageSum(str(name), *map(int, sums)) for name, *sums in sorted(map(tuple, rows))]
