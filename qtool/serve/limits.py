"""Every limit the server keeps; each has an option of `qtool serve` or a reason to be fixed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server accepts. Times in seconds, sizes in bytes.

    `queue_seconds` bounds a wait, `max_queue` the number that wait: a number alone lets an overload last minutes on a
    machine that is slower than the one it was chosen for. `max_items` counts commas, colons and brackets of a body.
    """

    max_running: int = 32
    max_queue: int = 100
    queue_seconds: float = 1.0
    max_connections: int = 1000
    header_seconds: float = 10.0
    idle_seconds: float = 30.0
    max_header_bytes: int = 64 * 1024
    max_headers: int = 100
    max_body_bytes: int = 2_000_000
    max_reading_bytes: int = 64_000_000
    body_seconds: float = 10.0
    max_items: int = 100_000
    max_messages: int = 256
    max_choices: int = 16
    prepare_seconds: float = 10.0
    default_tokens: int = 512
    deadline_seconds: float = 120.0
    drain_seconds: float = 45.0
    keep_alive_seconds: float = 15.0
    stall_seconds: float = 5.0
    window_seconds: float = 0.01
