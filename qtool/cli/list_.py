"""`qtool list`: what can be named in a plan or on the command line."""

from typing import Annotated, get_args

import typer

from qtool.cli.output import show

_PLUGINS = {
    "methods": "qtool.quantize.methods",
    "observers": "qtool.calibrate.observers",
    "metrics": "qtool.evaluate.metrics",
    "scorers": "qtool.evaluate.scorers",
    "readers": "qtool.evaluate.readers",
    "backends": "qtool.engine.backends",
}


def command(
    kind: Annotated[str | None, typer.Argument(help="Only this kind: schemes, methods, observers, tasks, ...")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List reference models, schemes, methods, observers, tasks, metrics and calibration sets."""
    from qtool.errors import UnknownName

    everything = _everything()
    if kind is not None and kind not in everything:
        raise UnknownName("kind", kind, everything)
    chosen = {name: entries for name, entries in everything.items() if kind in (None, name)}
    width = max(len(name) for entries in chosen.values() for name in entries)
    lines = []
    for name, entries in chosen.items():
        lines.append(f"{name}:")
        lines += [f"  {entry:<{width}}  {text}" for entry, text in entries.items()]
    show(chosen, as_json, "\n".join(lines))


def _everything() -> dict[str, dict[str, str]]:
    from qtool import catalog, reference
    from qtool.records.variant import SchemeName
    from qtool.store.shipped import evals_folder, sets_folder

    found = {
        "models": {name: "bundled reference model" for name in reference.names()},
        "schemes": {name: _SCHEMES[name] for name in get_args(SchemeName)},
    }
    for kind, package in _PLUGINS.items():
        found[kind] = {
            name: catalog.docstring(package, name, kind=kind).partition("\n")[0] for name in catalog.names(package)
        }
    found["tasks"] = _descriptions(evals_folder())
    found["sets"] = _descriptions(sets_folder())
    return found


def _descriptions(folder: object) -> dict[str, str]:
    import tomllib
    from pathlib import Path

    assert isinstance(folder, Path)
    tables = {path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.toml"))}
    return {name: str(table.get("description", "")) for name, table in tables.items()}


_SCHEMES = {
    "base": "the model as it is: the baseline of every comparison",
    "w8a16": "8-bit integer weights, 16-bit activations",
    "w4a16": "4-bit integer weights in groups, 16-bit activations",
    "w8a8": "8-bit integer weights and activations, per token (dynamic) or from calibrated ranges (static)",
    "fp8": "8-bit floating point (E4M3) weights and activations",
    "nf4": "4-bit NormalFloat weights of bitsandbytes",
    "int8": "LLM.int8() of bitsandbytes",
}
