"""One server for the tests of a module that do not disturb it."""

from collections.abc import Iterator

import pytest
from fake_engine import FakeEngine
from live_server import Running, running_server

from qtool.serve.limits import Limits


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    """A server around the fake engine, on a real port."""
    with running_server(
        FakeEngine(), limits=Limits(max_running=4, max_queue=40, queue_seconds=60.0, max_body_bytes=200_000)
    ) as running:
        yield running
