"""Every error streamtok raises on purpose, in one tree.

    StreamtokError
    ├── ConfigError             a flag or an environment variable is wrong
    ├── ModelError              a model folder cannot be loaded: names file, tensor, expectation
    └── RequestError            answered to a client; knows its HTTP status, type and code
        ├── InvalidRequest      400  the request is malformed or asks for what is not supported
        │   └── ContextTooLong  400  prompt and answer do not fit the model's context
        ├── Unauthorized        401  an API key is needed, or the one given is not known
        ├── Forbidden           403  a web page of another site sends it, or the key may not
        ├── NotFound            404  no such path, model or record
        ├── MethodNotAllowed    405  the path exists, the method does not
        ├── NotAcceptable       406  nothing the client accepts can be sent
        ├── RequestTimeout      408  the request did not arrive in time
        ├── BodyTooLarge        413  the body is above the server's limit
        ├── Unsupported         415  a content type or coding this server does not read
        ├── Misdirected         421  the Host is not one of this server's
        ├── RateLimited         429  the caller is over a limit of its own
        ├── EngineFailed        500  the engine could not go on with this request
        └── Unavailable         503  queue full, not ready, or shutting down

The body of an answer is OpenAI's: `{"error": {"message", "type", "param", "code"}}`, always with
all four keys. This module only says what went wrong; `streamtok.api.openai.answers` writes it as
JSON.

Read next: `streamtok.api.routing`.
"""

from typing import ClassVar


class StreamtokError(Exception):
    """The root: catching it catches everything streamtok raises on purpose."""


class ConfigError(StreamtokError):
    """A setting is wrong; the message names the flag or variable and what was expected."""


class ModelError(StreamtokError):
    """A model cannot be loaded; the message names the file, the tensor and what was expected."""


class RequestError(StreamtokError):
    """An error that is reported to the client.

    `param` is the field of the request that is to blame, `code` a short machine-readable reason.
    """

    status: int = 500
    type: str = "server_error"
    default_code: ClassVar[str | None] = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code if code is not None else self.default_code

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the response headers this error asks for, beside the usual ones."""
        return ()


class InvalidRequest(RequestError):
    """400: what was sent cannot be understood, or asks for something not supported."""

    status = 400
    type = "invalid_request_error"


class ContextTooLong(InvalidRequest):
    """400: the prompt, or prompt plus `max_tokens`, exceeds the model's context length."""

    default_code = "context_length_exceeded"


class Unauthorized(RequestError):
    """401: an API key is needed; `error` is RFC 6750's name for what is wrong with a given one."""

    status = 401
    type = "invalid_request_error"
    default_code = "invalid_api_key"

    def __init__(self, message: str, *, error: str = "") -> None:
        super().__init__(message)
        self.error = error

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the challenge (RFC 6750 section 3)."""
        return (("www-authenticate", f'Bearer error="{self.error}"' if self.error else "Bearer"),)


class Forbidden(RequestError):
    """403: whoever sends this may not, with or without a key."""

    status = 403
    type = "invalid_request_error"
    default_code = "forbidden"


class NotFound(RequestError):
    """404: no such path, model or usage record."""

    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class MethodNotAllowed(RequestError):
    """405: carries the methods that the path does answer, for `Allow` (RFC 9110 section 15.5.6)."""

    status = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"

    def __init__(self, message: str, allowed: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allowed = allowed

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the `Allow` header."""
        return (("allow", ", ".join(self.allowed)),)


class NotAcceptable(RequestError):
    """406: the request's `Accept` allows nothing that can be sent (RFC 9110 section 15.5.7)."""

    status = 406
    type = "invalid_request_error"
    default_code = "not_acceptable"


class RequestTimeout(RequestError):
    """408: the request did not arrive in the time there is for it (RFC 9110 section 15.5.9)."""

    status = 408
    type = "invalid_request_error"
    default_code = "request_timeout"


class BodyTooLarge(RequestError):
    """413: the request body is larger than the server reads."""

    status = 413
    type = "invalid_request_error"
    default_code = "request_too_large"


class Unsupported(RequestError):
    """415: the body has a content type or content coding that this server does not read."""

    status = 415
    type = "invalid_request_error"
    default_code = "unsupported_media_type"


class Misdirected(RequestError):
    """421: the request names another host than this server's (RFC 9110 section 15.5.20)."""

    status = 421
    type = "invalid_request_error"
    default_code = "misdirected_request"


class RateLimited(RequestError):
    """429: the caller is over a limit of its own; `kind` is "requests" or "tokens"."""

    status = 429
    default_code = "rate_limit_exceeded"

    def __init__(self, message: str, *, kind: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.type = kind
        self.retry_after_s = retry_after_s

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return `Retry-After` in seconds (RFC 6585 section 4)."""
        return (("retry-after", str(self.retry_after_s)),)


class EngineFailed(RequestError):
    """500: the engine raised while it worked on this request."""

    status = 500
    default_code = "engine_failed"


class Unavailable(RequestError):
    """503: the server cannot take the request now; `retry_after_s` is sent as Retry-After."""

    status = 503
    default_code = "unavailable"

    def __init__(self, message: str, *, retry_after_s: int = 1, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return `Retry-After` in seconds (RFC 9110 section 10.2.3)."""
        return (("retry-after", str(self.retry_after_s)),)
