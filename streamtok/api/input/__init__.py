"""JSON as real clients send it: nulls, fields of other servers, bounds, and errors in words.

`streamtok.app` plugs `BodyReader` into the Services.
"""
