"""`qtool doctor`: what this machine can do."""

from typing import TYPE_CHECKING, Annotated

import typer

from qtool.cli.output import show

if TYPE_CHECKING:
    from qtool.kernels.probe import Capabilities
    from qtool.kernels.timing import KernelTime


def command(
    kernels: Annotated[bool, typer.Option("--kernels", help="Also time every kernel, at 1 to 64 rows.")] = False,
    size: Annotated[int, typer.Option(min=256, max=16384, help="Width of the timed square weights.")] = 2048,
    compile_all: Annotated[
        bool, typer.Option("--compile", help="Compile the products of every level of instructions first, for an image.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what this machine can do: torch, processor, GPU, packages, and which kernel each scheme will use."""
    from qtool.front_door.looking import doctor

    found = doctor(kernels=kernels, size=size, compile_all=compile_all)
    show(found, as_json, _text(found.capabilities, found.kernel_times, size))


def _text(found: "Capabilities", times: "tuple[KernelTime, ...]", size: int) -> str:
    lines = [
        f"machine     {found.hardware}; vector instructions {found.vector_instructions}",
        f"level       {found.level or 'none, torch alone'}",
        f"device      {found.device}, {found.threads} threads, load average {found.load_average:.1f}",
        f"memory      {found.memory_free_bytes / 1e9:.1f} GB free of {found.memory_bytes / 1e9:.1f} GB",
        f"python      {found.python}",
        *(f"{name:<19} {version}" for name, version in found.packages),
        "",
        "scheme           kernel",
        *(f"{choice.scheme:<16} {choice.kernel}" for choice in found.kernels),
        *(("", *(f"note: {remark}" for remark in found.remarks)) if found.remarks else ()),
    ]
    if times:
        lines += ["", f"median microseconds at {size} x {size}, by rows (10th to 90th percentile, repeats)"]
        lines += [
            f"{time.scheme:<14} {time.rows:>3} rows {time.microseconds:>10.0f}  "
            f"[{time.low_microseconds:.0f}, {time.high_microseconds:.0f}], n {time.repeats}, "
            f"{time.gigabytes_per_second:.1f} GB/s"
            for time in times
        ]
        lines.append(
            f"packed products are used to {found.int4_rows} rows (4 bits), {found.int8_rows} rows (8 bits weight-only)"
        )
    return "\n".join(lines)
