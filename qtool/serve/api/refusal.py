"""Why a request is not answered, with the HTTP status and the words a client gets: never more than one line."""

from typing import Literal

from qtool.errors import RequestError

Outcome = Literal["success", "client_error", "server_error", "shed", "deadline", "aborted"]

_TYPES = {"shed": "overloaded_error", "deadline": "timeout_error", "client_error": "invalid_request_error"}
_CODES = {
    401: "invalid_api_key",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "too_large",
}
_STATES = {"shed": "overloaded", "deadline": "deadline_exceeded", "server_error": "engine_error"}


class Refused(RequestError):
    """One request is refused or has failed; `outcome` is the class it is counted in.

    With `retry_after` (seconds) the same request may be sent again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        outcome: Outcome = "client_error",
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.outcome: Outcome = outcome
        self.param = param
        self.retry_after = retry_after

    def body(self) -> dict[str, object]:
        """The error object of the OpenAI API."""
        code = _STATES.get(self.outcome) or _CODES.get(self.status, "invalid_value")
        kind = "rate_limit_error" if self.status == 429 else _TYPES.get(self.outcome, "server_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": code, "status": self.status}
        return {"error": error if self.retry_after is None else {**error, "retry_after": self.retry_after}}


class Disconnected(RequestError):
    """The client went away before its answer was complete."""


def shed(message: str, retry_after: int) -> Refused:
    """Turned away for want of room: 503 with Retry-After, counted apart from errors."""
    return Refused(503, message, outcome="shed", retry_after=retry_after)


def expired(seconds: float) -> Refused:
    """The request's own time is over: 504, never a short answer that looks complete."""
    return Refused(504, f"no complete answer within the deadline of {seconds:g} seconds", outcome="deadline")


def failed(message: str) -> Refused:
    """The engine could not answer: 500."""
    return Refused(500, message, outcome="server_error")


def lost() -> Refused:
    """The engine went away with the request; another one is being started."""
    return Refused(503, "the engine stopped in the middle of this request; send it again", outcome="server_error",
                   retry_after=1)  # fmt: skip


def leaving() -> Refused:
    """The server ends before the answer is complete."""
    return Refused(503, "the server is shutting down; send the request again", outcome="server_error", retry_after=1)
