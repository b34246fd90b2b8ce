"""`streamtok corpus DIR`: streams as files, with the events that a right parser gets.

For authors of parsers of server-sent events, in any language: legal oddities by the WHATWG
standard, answers of each API, and every fault. Not the faults themselves, which are in
`streamtok.faults`. Read next: `streamtok.corpus.cases`.
"""
