"""Saved models of one base, averaged by hand: incremental updates, a model of each department."""

from __future__ import annotations

import gc
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer

from evaluation.errors import InputError
from evaluation.files import read_json, write_whole
from trainables.export.export import MIN_COSINE, RECORD, Exported, ExportError, reloaded
from trainables.export.manifest import MANIFEST, appearing
from trainables.export.reload import embed_both
from trainables.model.parity import TEXTS

WEIGHTS = "*.safetensors"
LEFT_OUT = ("adapter", "onnx", "openvino", ".git", ".cache")  # folders of other forms of the model, which go stale
SETTINGS = ("config.json", "modules.json", "tokenizer.json", "config_sentence_transformers.json")
FREE = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "__version__", "truncation", "padding"}


def merge_models(
    folders: Sequence[Path],
    weights: Sequence[float] | None,
    dest: Path,
    card: str,
    force: bool = False,
) -> Exported:
    """The weighted mean of saved models in float32, one tensor at a time, as a folder for `SentenceTransformer(dest)`.

    Everything but the weights is the first folder's. The saved mean is reloaded in a fresh process and compared with
    the mean that is computed from the models as sentence-transformers loads them.

    Args:
        folders: at least two models of one base, with one architecture, tokenizer, pooling and prompts.
        weights: of each, scaled to sum to one; None: equal ones.
        card: the model card, README.md.

    Raises:
        InputError: what differs between the folders, files that cannot be read, weights that are none, `dest` exists.
        ExportError: the reloaded model is not the mean.
    """
    shares = _shares(folders, weights)
    names = _check_alike(folders)
    with appearing(dest, force) as aside:
        for name in names:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            save_file(_mean([folder / name for folder in folders], shares), aside / name, {"format": "pt"})
        _copy_settings(folders[0], aside)
        write_whole(aside / "README.md", card)
        texts = {"queries": list(TEXTS), "passages": list(TEXTS)}
        got_ND = reloaded(aside, texts, "safetensors")
        expected_ND = embed_both(_mean_of_models(folders, shares), texts)
        found = Exported(float((got_ND * expected_ND).sum(axis=1).min()), MIN_COSINE["fp32"])
        if not found.cosine >= found.tolerance:
            raise ExportError(f"{dest}: the reloaded model is not the mean (lowest cosine {found.cosine:.6f})")
        merged = [{"folder": str(f), "weight": share} for f, share in zip(folders, shares, strict=True)]
        record = {**_record(folders[0]), "merged": merged, "cosine": found.cosine}
        kept = {key: record[key] for key in ("base", "merged", "cosine") if key in record}
        write_whole(aside / RECORD, json.dumps(kept, indent=1, ensure_ascii=False))
    return found


def _shares(folders: Sequence[Path], weights: Sequence[float] | None) -> list[float]:
    if len(folders) < 2:
        raise InputError(f"merge: {len(folders)} models, expected at least two")
    given = [1.0] * len(folders) if weights is None else list(weights)
    if len(given) != len(folders):
        raise InputError(f"--weights: {len(given)} numbers for {len(folders)} models, expected one for each")
    if not all(math.isfinite(weight) and weight >= 0 for weight in given) or not math.fsum(given) > 0:
        raise InputError(f"--weights: {given}, expected numbers from 0, not all 0")
    return [weight / math.fsum(given) for weight in given]


def _weight_files(folder: Path) -> list[Path]:
    """Within the folder, without those of other forms of the model."""
    found = (path.relative_to(folder) for path in sorted(folder.rglob(WEIGHTS)))
    return [path for path in found if path.parts[0] not in LEFT_OUT]


def _check_alike(folders: Sequence[Path]) -> list[Path]:
    """The weight files, which are the same in all folders; so are settings and the names and shapes of weights."""
    first = folders[0]
    for folder in folders:
        if not (folder / "modules.json").is_file():
            raise InputError(f"{folder}: no modules.json there, expected a model that sentence-transformers saved")
    bases = {folder: _record(folder).get("base") for folder in folders}
    models = {str(folder.resolve()) for folder in folders}
    # An update of one of the models names that model as its base.
    others = {base for base in bases.values() if base is not None and str(Path(base).resolve()) not in models}
    if len(others) > 1:
        raise InputError(f"merge: bases differ: {', '.join(sorted(others))}; expected models of one base")
    poolings = sorted(path.relative_to(first).as_posix() for path in first.glob("*_*/config.json"))
    for other in folders[1:]:
        for name in (*SETTINGS, *poolings):
            _check_settings(first / name, other / name)
        if _weight_files(first) != _weight_files(other):
            raise InputError(f"merge: weight files of {first} and {other} differ, expected models of one architecture")
        for file in _weight_files(first):
            one, two = _weights(first / file), _weights(other / file)
            for key in sorted(one.keys() | two.keys()):
                if one.get(key) != two.get(key):
                    raise InputError(
                        f"merge: {key} is {one.get(key)} in {first} and {two.get(key)} in {other}; "
                        "expected models of one architecture"
                    )
    return _weight_files(first)


def _check_settings(one: Path, other: Path) -> None:
    first, second = (_settings(path) for path in (one, other))
    if first == second:
        return
    keys = sorted(k for k in first.keys() | second.keys() if first.get(k) != second.get(k))
    told = f"{keys[0]} is {_short(first.get(keys[0]))} and {_short(second.get(keys[0]))}"
    raise InputError(f"merge: {one} and {other} differ: {told}; expected models of one base, read alike")


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    if path.name == "modules.json":
        return {f"module {module['idx']}": module["type"] for module in json.loads(path.read_text(encoding="utf-8"))}
    return {key: value for key, value in read_json(path).items() if key not in FREE}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    return read_json(path) if path.is_file() else {}


def _weights(file: Path) -> dict[str, str]:
    """Name -> shape of each weight."""
    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: str(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{file}: not a whole safetensors file ({error})") from None


def _mean(files: Sequence[Path], shares: Sequence[float]) -> dict[str, torch.Tensor]:
    mean: dict[str, torch.Tensor] = {}
    for name in _weights(files[0]):
        for file, share in zip(files, shares, strict=True):
            with safe_open(file, framework="pt") as tensors:  # anew for each weight, so that read pages are let go
                weight = tensors.get_tensor(name)
                if not weight.is_floating_point():
                    mean.setdefault(name, weight.clone())
                elif name in mean:
                    mean[name].add_(weight.float(), alpha=share)
                else:
                    mean[name] = weight.float() * share
        if not mean[name].isfinite().all():
            raise InputError(f"merge: {name} holds NaN or infinity, expected finite weights")
    return mean


def _copy_settings(source: Path, target: Path) -> None:
    def unwanted(folder: str, names: list[str]) -> list[str]:
        top = Path(folder) == source
        own = (MANIFEST, RECORD, "README.md", *LEFT_OUT) if top else ()
        return [name for name in names if name in own or name.endswith((".safetensors", ".safetensors.index.json"))]

    shutil.copytree(source, target, ignore=unwanted, dirs_exist_ok=True)
    config = read_json(target / "config.json")
    write_whole(target / "config.json", json.dumps({**config, "dtype": "float32"}, indent=2))


def _mean_of_models(folders: Sequence[Path], shares: Sequence[float]) -> SentenceTransformer:
    mean = _loaded(folders[0])
    for parameter in mean.parameters():
        parameter.data.mul_(shares[0])
    for folder, share in zip(folders[1:], shares[1:], strict=True):
        other = dict(_loaded(folder).named_parameters())
        for name, parameter in mean.named_parameters():
            parameter.data.add_(other.pop(name).data, alpha=share)
        del other
        gc.collect()  # models refer to themselves: without this, several would be in memory at once
    return mean.eval()


def _loaded(folder: Path) -> SentenceTransformer:
    options = {"dtype": torch.float32, "use_safetensors": True}
    return SentenceTransformer(str(folder), device="cpu", model_kwargs=options)
