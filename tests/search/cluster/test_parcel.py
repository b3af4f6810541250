"""What goes to a cluster with a search: what its spec names, in its place, and nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from evaluation.errors import InputError
from search.cluster.parcel import Parcel, pack
from search.cluster.shared_bases import share_bases
from search.spec.load import load_spec
from tests.conftest import TinyBase
from tests.kit.toy import write_spec


def packed(spec: Path) -> Parcel:
    return pack(spec, load_spec(spec))


def sent(parcel: Parcel) -> set[str]:
    return {str(path.relative_to(parcel.root)) for path in parcel.files}


def changed(spec: Path, **changes: Any) -> Path:
    keys = yaml.safe_load(spec.read_text())
    for key, value in changes.items():
        keys[key] = {**keys[key], **value} if isinstance(value, dict) else value
    spec.write_text(yaml.safe_dump(keys))
    return spec


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A spec in a folder that holds much else."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("runs/old/best.bin", ".venv/lib.so", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / ".gitignore").write_text("*.jsonl\n")
    return write_spec(folder, Path("some/base"), concepts=10)


def test_the_spec_and_what_it_names_goes_along_and_nothing_else(spec: Path, tmp_path: Path) -> None:
    parcel = packed(spec)
    assert sent(parcel) == {"toy.yaml", "pairs.jsonl", "guard.jsonl"}
    (tmp_path / "laid").mkdir()
    parcel.lay_out(tmp_path / "laid")
    assert (tmp_path / "laid" / "pairs.jsonl").read_bytes() == (spec.parent / "pairs.jsonl").read_bytes()
    assert load_spec(tmp_path / "laid" / "toy.yaml").name == "toy"


def test_data_beside_the_folder_keeps_its_place(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    shutil.move(spec.parent / "pairs.jsonl", tmp_path / "data")
    parcel = packed(changed(spec, data={"source": "../data/pairs.jsonl"}))
    assert sent(parcel) == {"project/toy.yaml", "data/pairs.jsonl", "project/guard.jsonl"}


def test_an_absolute_path_stays_on_the_cluster(spec: Path) -> None:
    parcel = packed(changed(spec, data={"source": "/mnt/data/pairs.jsonl"}))
    assert sent(parcel) == {"toy.yaml", "guard.jsonl"}
    assert parcel.absolute == ("/mnt/data/pairs.jsonl",)


def test_data_that_is_not_there_is_told_before_anything_is_sent(spec: Path) -> None:
    with pytest.raises(InputError, match=r"toy.yaml: data.source: .*/project/pears.jsonl: no such file; nothing was"):
        packed(changed(spec, data={"source": "pears.jsonl"}))


def test_data_beyond_what_a_job_takes_is_named_with_its_size_and_a_way_out(spec: Path) -> None:
    os.truncate(spec.parent / "pairs.jsonl", 101 * 2**20)  # a hole: it takes no room
    with pytest.raises(InputError) as error:
        packed(spec)
    for part in ("data.source", "/project/pairs.jsonl has 101.0 MiB", "takes 100.0 MiB", "absolute path", "the hub"):
        assert part in str(error.value)


def test_a_base_beside_the_spec_goes_along_and_is_put_where_all_nodes_see_it(
    spec: Path, tiny_base: TinyBase, tmp_path: Path
) -> None:
    shutil.copytree(tiny_base("bert"), spec.parent / "mine")
    spec = changed(
        spec, space={"base": "./mine", "lr": [{"when": {"base": "./mine"}, "values": [1e-3]}, {"values": [1e-4]}]}
    )
    assert {"mine/modules.json", "mine/model.safetensors"} <= sent(packed(spec))
    shared, again = (share_bases(load_spec(spec), tmp_path / "runs") for _ in range(2))
    (base,) = {config.base for config in shared.parsed_space.configs()}
    assert Path(base).parent == tmp_path / "runs" / ".bases"
    assert (Path(base) / "modules.json").is_file()
    assert shared.space["lr"][0]["when"] == {"base": base}
    assert again.space == shared.space, "a search that goes on finds the same"


def test_a_base_that_is_no_model_is_told_before_anything_is_sent(spec: Path) -> None:
    (spec.parent / "mine").mkdir()
    with pytest.raises(InputError, match=r"base: .*mine holds neither config.json nor modules.json"):
        packed(changed(spec, space={"base": "mine"}))


def test_the_base_of_a_hub_is_not_touched(spec: Path, tmp_path: Path) -> None:
    loaded = load_spec(spec)
    assert share_bases(loaded, tmp_path / "runs") is loaded
    assert not (tmp_path / "runs").exists()


def test_a_relative_base_is_the_one_beside_the_spec_wherever_it_is_called_from(
    spec: Path, tiny_base: TinyBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_base("bert"), spec.parent / "mine")
    loaded = load_spec(changed(spec, space={"base": ["mine", "some/base"]}, start=[{"base": "mine", "r": 4}]))
    bases = {config.base for config in loaded.parsed_space.configs()}
    assert bases == {str(spec.parent / "mine"), "some/base"}
    monkeypatch.chdir(spec.parent / "runs")
    assert load_spec(spec).space == loaded.space
