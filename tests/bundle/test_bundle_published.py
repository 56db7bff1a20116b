"""A bundle for others: pushed to a hub, listed part by part, made again from its own lock."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hub_stand_in import hub

import qtool
from qtool.bundle.deploy import pinned_packages
from qtool.errors import MismatchError, StoreError
from qtool.models.identity import identify
from qtool.models.locate import locate
from qtool.progress import Silent
from qtool.records.bundle import Bundle
from qtool.records.plan import Plan, PlannedVariant
from qtool.records.plan_lock import PlanLock
from qtool.records.variant import Recipe
from qtool.store.codec import read_json
from qtool.store.run_directory import write_record


@pytest.fixture
def locked_bundle(run: Path) -> Path:
    """The bundle of a run that has a lock, written on a machine with paths of its own."""
    from qtool.bundle.stage import bundle

    plan = Plan("reference-64", "small", (PlannedVariant("w8a16", Recipe(scheme="w8a16", method="rtn")),), ())
    identity = identify(locate("reference-64"), source="reference-64")
    lock = PlanLock(
        replace(plan, evals_dir="/home/me/evals"), identity, (), (("qtool", qtool.__version__),), "2 cores",
        "qtool run /home/me/plan.toml -o /data/small", "2026-11-28T22:57:00+00:00",
    )  # fmt: skip
    write_record(run / "plan.lock.json", lock)
    bundle(run, variant="w8a16", output=run / "bundle", progress=Silent())
    return run / "bundle"


def pushed(bundle: Path, address: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """`qtool push` in a process of its own: the hub's client reads its address when it is imported."""
    environment = os.environ | {"HF_ENDPOINT": address, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-m", "qtool", "push", str(bundle), "me/small", "-q", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_bundle_is_pushed_whole_in_one_commit(made_bundle: Path) -> None:
    with hub() as server:
        done = pushed(made_bundle, server.address)
        assert done.returncode == 0, done.stderr
        assert "get and check it: hf download me/small" in done.stdout
        files = server.files["me/small"]
        assert files == {
            path.relative_to(made_bundle).as_posix(): path.read_bytes()
            for path in made_bundle.rglob("*")
            if path.is_file()
        }
        assert server.private == {"me/small": True}, "nobody else sees it unless --public is given"
        assert len(server.messages) == 1


def test_a_changed_bundle_is_not_pushed_and_a_refusal_is_one_line(made_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(made_bundle, tmp_path / "copy"))
    (copy / "tokenizer.json").write_text("{}")
    with hub() as server:
        done = pushed(copy, server.address)
        assert done.returncode == MismatchError.exit_code
        assert server.private == {}
        server.refuse = 403
        done = pushed(made_bundle, server.address)
        assert done.returncode == 10
        assert done.stderr == (
            "qtool: me/small: the hub refused: your token may not write there; use one that may, or another name\n"
        )


def test_the_bill_of_materials_lists_base_packages_and_weights(made_bundle: Path) -> None:
    bill = json.loads((made_bundle / "sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    parts = {part["bom-ref"]: part for part in bill["components"]}
    manifest = read_json(Bundle, made_bundle / "bundle.json")
    assert parts["base"]["hashes"][0]["content"] == manifest.variant.base.weights_digest
    assert {line.partition("==")[0] for line in pinned_packages()} <= {part["name"] for part in parts.values()}
    listed = {entry.path: entry.sha256 for entry in manifest.files}
    weights = [part for part in parts.values() if part["type"] == "file"]
    assert weights
    assert all(listed[part["name"]] == part["hashes"][0]["content"] for part in weights)
    assert set(bill["dependencies"][0]["dependsOn"]) == set(parts)
    assert "sbom.cdx.json" in listed


def test_the_lock_travels_without_paths_of_this_machine(locked_bundle: Path) -> None:
    lock = read_json(PlanLock, locked_bundle / "plan.lock.json")
    assert lock.plan.evals_dir == "evals"
    assert lock.command == "qtool run plan.toml -o small"
    assert "/home" not in (locked_bundle / "plan.lock.json").read_text()


def test_a_bundle_is_made_again_to_the_byte(locked_bundle: Path) -> None:
    found = qtool.reproduce(locked_bundle, quiet=True)
    assert found.reproduced, found.table()
    assert found.tensors > 20
    assert "tensors with the same bytes" in found.table()


def test_the_input_that_moved_is_named(locked_bundle: Path) -> None:
    other = qtool.reproduce(locked_bundle, model="reference-128", quiet=True)
    assert not other.reproduced
    assert [moved.what for moved in other.moved] == ["weights of the base"]
    assert "not made again: it would be of another model" in other.table()
    manifest = read_json(Bundle, locked_bundle / "bundle.json")
    recipe = replace(manifest.variant.recipe, group_size=32)
    write_record(locked_bundle / "bundle.json", replace(manifest, variant=replace(manifest.variant, recipe=recipe)))
    lock = read_json(PlanLock, locked_bundle / "plan.lock.json")
    write_record(locked_bundle / "plan.lock.json", replace(lock, versions=(("qtool", "0.0.9"),)))
    found = qtool.reproduce(locked_bundle, quiet=True)
    assert not found.reproduced
    assert found.differing
    assert ("qtool", "0.0.9") in [(moved.what, moved.then) for moved in found.moved]


def test_a_bundle_without_a_lock_says_so(made_bundle: Path) -> None:
    with pytest.raises(StoreError, match=r"has no plan\.lock\.json"):
        qtool.reproduce(made_bundle, quiet=True)
