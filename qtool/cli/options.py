"""Options that several commands share, worded once."""

from typing import Annotated

import typer

Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Threads to compute with (default: OMP_NUM_THREADS, else the cores one really has)."),
]
