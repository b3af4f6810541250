"""Saved models of one base, averaged by hand: incremental updates, a model of each department."""

from __future__ import annotations

import gc
import json
import math
import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from sentence_transformers import SentenceTransformer

from evaluation.errors import InputError
from evaluation.files import read_json, write_whole
from trainables.export.export import MIN_COSINE, RECORD, Exported, ExportError, reloaded
from trainables.export.manifest import MANIFEST, appearing
from trainables.export.reload import embed_both
from trainables.export.stream import FLOATS, write_tensors
from trainables.model.parity import TEXTS

WEIGHTS = "*.safetensors"
LEFT_OUT = ("adapter", "onnx", "openvino", ".git", ".cache")  # folders of other forms of the model, which go stale
SETTINGS = ("config.json", "modules.json", "tokenizer.json", "config_sentence_transformers.json")
# Weights, which are the mean's own, or those of one model in another format; the index of several files stays.
OTHER_WEIGHTS = (WEIGHTS, "pytorch_model*.bin", "pytorch_model*.bin.index.json", "tf_model*.h5", "*.msgpack", "*.gguf")
FREE = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "__version__", "truncation", "padding"}


def merge_models(
    folders: Sequence[Path],
    weights: Sequence[float] | None,
    dest: Path,
    card: str,
    force: bool = False,
    trust_remote_code: bool = False,
) -> Exported:
    """The weighted mean of saved models in float32, one tensor at a time, as a folder for `SentenceTransformer(dest)`.

    Everything but the weights is the first folder's. The saved mean is reloaded in a fresh process and compared with
    the mean that is computed from the models as sentence-transformers loads them.

    Args:
        folders: at least two models of one base, with one architecture, tokenizer, pooling and prompts.
        weights: of each, scaled to sum to one; None: equal ones.
        card: the model card, README.md.
        trust_remote_code: the models' own code is run.

    Raises:
        InputError: what differs between the folders, files that cannot be read, weights that are none, `dest` exists.
        ExportError: the reloaded model is not the mean.
    """
    shares = _shares(folders, weights)
    names = _check_alike(folders)
    with appearing(dest, force) as aside:
        for name in names:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            _write_mean([folder / name for folder in folders], shares, aside / name)
        _copy_settings(folders[0], aside)
        write_whole(aside / "README.md", card)
        texts = {"queries": list(TEXTS), "passages": list(TEXTS)}
        got_ND = reloaded(aside, texts, "safetensors", trust_remote_code=trust_remote_code)
        expected_ND = embed_both(_mean_of_models(folders, shares, trust_remote_code), texts)
        found = Exported(float((got_ND * expected_ND).sum(axis=1).min()), MIN_COSINE["fp32"])
        if not found.cosine >= found.tolerance:
            raise ExportError(f"{dest}: the reloaded model is not the mean (lowest cosine {found.cosine:.6f})")
        merged = [{"folder": str(f), "weight": share} for f, share in zip(folders, shares, strict=True)]
        record = {**_record(folders[0]), "revision": _revision(folders[0]), "merged": merged, "cosine": found.cosine}
        kept = {key: record[key] for key in ("base", "revision", "merged", "cosine") if key in record}
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
    found = [path.relative_to(folder) for path in sorted(folder.rglob("*"))]
    own = [path for path in found if path.parts[0] not in LEFT_OUT]
    weights = [path for path in own if path.match(WEIGHTS)]
    for path in own:
        if path.match("pytorch_model*.bin") and path.parent not in {file.parent for file in weights}:
            raise InputError(f"{folder / path}: weights that are no safetensors, expected {WEIGHTS} beside them")
    return weights


def _check_alike(folders: Sequence[Path]) -> list[Path]:
    """The weight files, which are the same in all folders; so are settings and the names and shapes of weights."""
    first = folders[0]
    for folder in folders:
        if not (folder / "modules.json").is_file():
            raise InputError(f"{folder}: no modules.json there, expected a model that sentence-transformers saved")
    _check_bases(folders)
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


def _check_bases(folders: Sequence[Path]) -> None:
    models = {str(folder.resolve()) for folder in folders}
    bases = {folder: _record(folder).get("base") for folder in folders}
    # An update of one of the models names that model as its base.
    others = {f: base for f, base in bases.items() if base is not None and str(Path(base).resolve()) not in models}
    if len(set(others.values())) > 1:
        raise InputError(f"merge: bases differ: {', '.join(sorted(others.values()))}; expected models of one base")
    revisions = {_revision(folder) or "not pinned" for folder in others}
    if len(revisions) > 1:
        raise InputError(f"merge: revisions of the base differ: {', '.join(sorted(revisions))}; expected one")


def of_unknown_base(folders: Sequence[Path]) -> list[Path]:
    """Those that do not say what their base is, and are not the base of another: of them the settings, and the names
    and shapes of weights, are all that was compared."""
    bases = [_record(folder).get("base") for folder in folders]
    named = {str(Path(base).resolve()) for base in bases if base is not None}
    return [f for f, base in zip(folders, bases, strict=True) if base is None and str(f.resolve()) not in named]


def _revision(folder: Path) -> str | None:
    record = _record(folder)
    found: str | None = record.get("revision", record.get("config", {}).get("revision"))
    return found


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


def _write_mean(files: Sequence[Path], shares: Sequence[float], target: Path) -> None:
    """Floats averaged in float32, others as the first file has them."""
    layout: dict[str, tuple[str, Sequence[int]]] = {}
    with safe_open(files[0], framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118
            part = tensors.get_slice(name)
            dtype = part.get_dtype()
            layout[name] = ("F32" if dtype in FLOATS else dtype, part.get_shape())
    write_tensors(target, layout, lambda name: _mean(name, files, shares))


def _mean(name: str, files: Sequence[Path], shares: Sequence[float]) -> torch.Tensor:
    mean: torch.Tensor | None = None
    for file, share in zip(files, shares, strict=True):
        with safe_open(file, framework="pt") as tensors:  # anew for each weight, so that read pages are let go
            weight = tensors.get_tensor(name)
            if not weight.is_floating_point():
                return weight.clone()
            mean = weight.float() * share if mean is None else mean.add_(weight.float(), alpha=share)
    if mean is None or not mean.isfinite().all():
        raise InputError(f"merge: {name} holds NaN or infinity, expected finite weights")
    return mean


def _copy_settings(source: Path, target: Path) -> None:
    def unwanted(folder: str, names: list[str]) -> list[str]:
        top = Path(folder) == source
        own = (MANIFEST, RECORD, "README.md", *LEFT_OUT) if top else ()
        return [name for name in names if name in own or any(fnmatch(name, other) for other in OTHER_WEIGHTS)]

    shutil.copytree(source, target, ignore=unwanted, dirs_exist_ok=True)
    config = read_json(target / "config.json")
    write_whole(target / "config.json", json.dumps({**config, "dtype": "float32"}, indent=2))


def _mean_of_models(folders: Sequence[Path], shares: Sequence[float], trust: bool) -> SentenceTransformer:
    mean = _loaded(folders[0], trust)
    for parameter in mean.parameters():
        parameter.data.mul_(shares[0])
    for folder, share in zip(folders[1:], shares[1:], strict=True):
        other = dict(_loaded(folder, trust).named_parameters())
        for name, parameter in mean.named_parameters():
            parameter.data.add_(other.pop(name).data, alpha=share)
        del other
        gc.collect()  # models refer to themselves: without this, several would be in memory at once
    return mean.eval()


def _loaded(folder: Path, trust: bool) -> SentenceTransformer:
    options = {"dtype": torch.float32, "use_safetensors": True}
    return SentenceTransformer(str(folder), device="cpu", model_kwargs=options, trust_remote_code=trust)
