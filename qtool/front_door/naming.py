"""Everything that can be named in a plan or on the command line: what there is of each kind, and what each one is."""

from collections.abc import Callable, Mapping
from pathlib import Path

from qtool import catalog
from qtool.errors import UnknownName

PLUGINS: Mapping[str, str] = {
    "method": "qtool.quantize.methods",
    "observer": "qtool.calibrate.observers",
    "metric": "qtool.evaluate.metrics",
    "scorer": "qtool.evaluate.scorers",
    "reader": "qtool.evaluate.readers",
    "format": "qtool.formats",
    "backend": "qtool.engine.backends",
}
KINDS = ("model", "scheme", *PLUGINS, "task", "set")


def descriptions(kind: str) -> dict[str, str]:
    """Each name of one `kind` with a line on what it is."""
    from qtool import reference
    from qtool.formats.schemes import SCHEMES
    from qtool.store.shipped import evals_folder, sets_folder

    if kind in PLUGINS:
        package = PLUGINS[kind]
        return {name: _first_line(catalog.docstring(package, name, kind=kind)) for name in catalog.names(package)}
    if kind == "task":
        return _described_in(evals_folder())
    if kind == "set":
        return _described_in(sets_folder())
    if kind == "scheme":
        return {name: scheme.about for name, scheme in SCHEMES.items()}
    return {name: "bundled reference model" for name in reference.names()}


def kinds_of(name: str) -> tuple[str, ...]:
    """Every kind that has something called `name`. Raises UnknownName with the nearest names of all kinds."""
    known = {kind: tuple(descriptions(kind)) for kind in KINDS}
    found = tuple(kind for kind, names in known.items() if name in names)
    if not found and name.endswith(".toml") and Path(name).is_file():
        return ("task",)
    if not found:
        raise UnknownName("name", name, {entry for names in known.values() for entry in names})
    return found


def singular(kind: str) -> str:
    """The kind that `kind` (method, methods) stands for. Raises UnknownName with the nearest ones."""
    if kind.removesuffix("s") not in KINDS:
        raise UnknownName("kind", kind, KINDS)
    return kind.removesuffix("s")


def documentation(kind: str, name: str) -> str:
    """What there is to know about one named thing. Raises UnknownName with the nearest names of its kind."""
    if kind in PLUGINS:
        return catalog.docstring(PLUGINS[kind], name, kind=kind)
    explain: Callable[[str], str] = {"task": _task, "scheme": _scheme, "set": _set, "model": _model}[kind]
    return explain(name)


def _task(name: str) -> str:
    from qtool.evaluate.items.describe import describe
    from qtool.evaluate.items.tasks import load_task

    return describe(load_task(name))


def _scheme(name: str) -> str:
    from qtool.formats.registry import holding
    from qtool.formats.schemes import SCHEMES

    if name not in SCHEMES:
        raise UnknownName("scheme", name, SCHEMES)
    scheme = SCHEMES[name]
    groups = ", ".join("the whole row" if size == -1 else f"{size}" for size in scheme.groups)
    return "\n".join(
        (
            scheme.about,
            f"bits a weight:  {scheme.bits}",
            f"group sizes:    {groups}",
            f"activations:    {', '.join(scheme.activations)}",
            f"formats:        {', '.join(holding(name))}",
            f"asymmetric:     {'possible' if scheme.asymmetric else 'no'}",
            f"default method: {scheme.default_method}",
        )
    )


def _set(name: str) -> str:
    from qtool.data.sets import load_set

    spec = load_set(name)
    whole = sum(source.weight for source in spec.sources)
    sources = (
        f"  {source.tag}: {source.weight / whole:.0%} of the sequences, from {source.origin}" for source in spec.sources
    )
    head = f"{spec.name}, version {spec.version}: {spec.description}"
    return "\n".join((head, f"licence: {spec.licence}", "sources:", *sources))


def _model(name: str) -> str:
    from qtool import reference

    card = (reference.folder(name) / "README.md").read_text(encoding="utf-8")
    return card.split("---\n", 2)[-1].strip()  # the card begins with its metadata


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _described_in(folder: Path) -> dict[str, str]:
    import tomllib

    tables = {path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.toml"))}
    return {name: str(table.get("description", "")) for name, table in tables.items()}
