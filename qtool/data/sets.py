"""Calibration sets: what `calibration_sets/<name>.toml` says, or what a plain data file stands for."""

from dataclasses import dataclass
from pathlib import Path

from qtool.data.files import SUFFIXES, is_data
from qtool.errors import DataError, PlanError, UnknownName
from qtool.store.codec import read_toml
from qtool.store.shipped import sets_folder


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One `[[sources]]` table: where rows come from and how a row becomes text.

    Exactly one of `generator`, `data` (a file or folder, beside the set file if relative) and `hub` is given.
    `text` is a template over the row's fields such as "{question} {answer}"; `user` and `assistant`, templates too, are
    the two turns that a model with a chat template is shown instead; `messages` names the field that holds chat turns,
    which go through the model's own template. `packed` joins rows to full sequences; without it each row
    is a sequence of its own. `weight` is this source's share of the sequences, relative to the others; rows of weight 0
    make no range and only check whether the others cover them.
    """

    tag: str
    weight: float = 1.0
    generator: str | None = None
    data: str | None = None
    hub: str | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    text: str | None = None
    user: str | None = None
    assistant: str | None = None
    messages: str | None = None
    packed: bool | None = None

    def __post_init__(self) -> None:
        problems = []
        given = [name for name in ("generator", "data", "hub") if getattr(self, name) is not None]
        if len(given) != 1:
            problems.append(f"source {self.tag!r} needs exactly one of generator, data, hub; got {given or 'none'}")
        if not self.weight >= 0:
            problems.append(f"source {self.tag!r} has weight {self.weight}; it must not be below 0")
        if self.text is not None and self.messages is not None:
            problems.append(f"source {self.tag!r} has both text and messages; a row is one or the other")
        if (self.user is None) != (self.assistant is None):
            problems.append(f"source {self.tag!r} has one of user and assistant; give both turns")
        if self.user is not None and self.text is None and self.generator is None:
            problems.append(f"source {self.tag!r} has user and assistant; give text too, for models without chat")
        if self.hub is not None and self.revision is None:
            problems.append(f"source {self.tag!r} needs a pinned revision of {self.hub} (a commit id)")
        if problems:
            raise PlanError(problems)

    @property
    def joins_rows(self) -> bool:
        """Whether rows are packed: as said, else for files and hub sets but not for generated items."""
        return self.generator is None if self.packed is None else self.packed

    @property
    def origin(self) -> str:
        """Where the rows come from, in words."""
        return self.data or self.hub or f"generator {self.generator}"


@dataclass(frozen=True, slots=True)
class SetSpec:
    """One calibration set, decoded. Paths in `sources` are absolute."""

    name: str
    description: str
    licence: str
    version: int
    sources: tuple[SourceSpec, ...]

    def __post_init__(self) -> None:
        tags = [source.tag for source in self.sources]
        problems = [
            f"tag {tag!r} is given to {tags.count(tag)} sources" for tag in sorted(set(tags)) if tags.count(tag) > 1
        ]
        if not self.sources:
            problems.append("a set needs at least one [[sources]] table")
        elif not any(source.weight > 0 for source in self.sources):
            problems.append("every source has weight 0, so none would make a range")
        if problems:
            raise PlanError(problems)


def set_names(sets_dir: Path | None = None) -> dict[str, Path]:
    """Names of the sets that can be named, and their files; those of `sets_dir` hide shipped ones of the same name."""
    folders = [sets_folder(), *([sets_dir] if sets_dir else [])]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


def load_set(name_or_path: str, *, sets_dir: Path | None = None) -> SetSpec:
    """The set of that name, of that .toml file, or one made of that data file or folder.

    Raises UnknownName with the nearest names, PlanError naming the keys that are wrong, DataError for a path that
    holds no data.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix == ".toml" and path.is_file():
        return _read(path)
    if path.exists() and (path.is_dir() or is_data(path)):
        source = SourceSpec(tag=path.stem, data=str(path.resolve()))
        return SetSpec(path.stem, f"the rows of {path.name}", "unknown", 1, (source,))
    if path.exists():
        raise DataError(
            f"{path}: is no calibration set; known kinds are .toml, {', '.join(SUFFIXES)} and folders of these"
        )
    known = set_names(sets_dir)
    if name_or_path in known:
        return _read(known[name_or_path])
    if path.suffix or "/" in name_or_path:
        raise DataError(f"{name_or_path}: no such file")
    raise UnknownName("calibration set", name_or_path, known)


def with_traffic(spec: SetSpec, traffic: SetSpec) -> SetSpec:
    """`spec` with the sources of `traffic` beside its own, at weight 0: they only check the ranges of `spec`."""
    from dataclasses import replace

    taken = {source.tag for source in spec.sources}
    added = tuple(
        replace(source, tag=f"{source.tag} (traffic)" if source.tag in taken else source.tag, weight=0.0)
        for source in traffic.sources
    )
    return replace(spec, sources=spec.sources + added)


def _read(path: Path) -> SetSpec:
    from dataclasses import replace

    spec = read_toml(SetSpec, path)
    if spec.name != path.stem:
        raise PlanError([f"{path}: name: is {spec.name!r} but the file is called {path.stem!r}"])
    placed = tuple(
        replace(source, data=str((path.parent / source.data).resolve())) if source.data is not None else source
        for source in spec.sources
    )
    return replace(spec, sources=placed)
