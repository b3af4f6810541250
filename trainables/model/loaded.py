"""Bases as they are read from their files: each once a process, on its device, shared by the trials that follow."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.model import BaseModel
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from evaluation.errors import InputError
from evaluation.files import put_in_place
from trainables.bases import hub
from trainables.bases.families import ResolvedBase
from trainables.config import ClassifierConfig, TrialConfig
from trainables.distributed import lead
from trainables.model.kept_tokens import KeptTokens
from trainables.model.precision import AttentionName
from trainables.model.weights import check_weights

Model = TypeVar("Model", bound=BaseModel)
KEPT_BASES = 2  # in a process, the least recently used leaves: a search over many bases must not fill a GPU with them
FILES = "_embtune_files"  # attribute of an encoder: the file of each weight that is mapped
_BASES: dict[tuple[str, str, torch.dtype, str | None, str, bool], tuple[SentenceTransformer, KeptTokens]] = {}
_CLASSIFIERS: dict[tuple[str, int, torch.dtype, str | None, str], CrossEncoder] = {}


def loaded_base(
    config: TrialConfig,
    base: ResolvedBase,
    dtype: torch.dtype,
    attention: AttentionName | None,
    device: torch.device,
    cache_folder: Path | None,
) -> tuple[SentenceTransformer, KeptTokens]:
    """The base of a trial, which callers share and must not write, and what is kept of its texts' tokens.

    Args:
        config: names the base and its revision.
        base: what is known of it.
        dtype: of its weights.
        attention: None: what the base's own code takes.
        device: where its weights lie.
        cache_folder: where a converted copy of its files is kept; None: nowhere.

    Raises:
        InputError: the base cannot be had, or has no encoder to adapt.
    """
    folder, _ = hub.fetch(config.base, config.revision, code=config.trust_remote_code)
    key = (str(folder), base.pooling, dtype, attention, str(device), config.trust_remote_code)
    loaded = _BASES.pop(key, None)
    if loaded is None:
        while len(_BASES) >= KEPT_BASES:
            _BASES.pop(next(iter(_BASES)))
        loaded = _load(folder, base, dtype, attention, device, config.trust_remote_code, cache_folder), KeptTokens()
    _BASES[key] = loaded  # last: the most recently used
    return loaded


def loaded_classifier(
    config: ClassifierConfig,
    base: ResolvedBase,
    dtype: torch.dtype,
    attention: AttentionName | None,
    device: torch.device,
    cache_folder: Path | None,
) -> CrossEncoder:
    """The base with a classification head on it, which callers share and must not write; as loaded_base.

    What its files lack of the head is drawn at random and means nothing.

    Raises:
        InputError: the base cannot be had, its architecture has no such head, or its files lack weights of its body.
    """
    folder, _ = hub.fetch(config.base, config.revision)
    key = (str(folder), len(config.labels), dtype, attention, str(device))
    loaded = _CLASSIFIERS.pop(key, None)
    if loaded is None:
        while len(_CLASSIFIERS) >= KEPT_BASES:
            _CLASSIFIERS.pop(next(iter(_CLASSIFIERS)))
        load = functools.partial(_read_classifier, classes=len(config.labels), dtype=dtype, attention=attention)
        loaded = _loaded(load, folder, f"{base.family}-{len(config.labels)}", dtype, device, cache_folder)
    _CLASSIFIERS[key] = loaded
    return loaded


def _read_classifier(folder: Path, classes: int, dtype: torch.dtype, attention: AttentionName | None) -> CrossEncoder:
    model_kwargs: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "ignore_mismatched_sizes": True}
    if attention is not None:
        model_kwargs["attn_implementation"] = attention
    try:
        with no_bars(), _no_load_report():
            encoder = Transformer(
                str(folder),
                transformer_task="sequence-classification",
                model_kwargs=model_kwargs,
                config_kwargs={"num_labels": classes},
            )
            return CrossEncoder(modules=[encoder], device="cpu").eval()
    except ValueError as error:
        raise InputError(f"base: {folder}: has no classification head ({str(error).splitlines()[0][:120]})") from None


def forget_bases() -> None:
    """Drop the bases that this process keeps."""
    _BASES.clear()
    _CLASSIFIERS.clear()


def transformer_of(model: BaseModel) -> PreTrainedModel:
    """The encoder within a model.

    Raises:
        InputError: it has none.
    """
    inner = model.transformers_model
    if inner is None:
        raise InputError("base: has no transformers encoder (a static or bag-of-words model), expected one to adapt")
    return inner


def _load(
    folder: Path,
    base: ResolvedBase,
    dtype: torch.dtype,
    attention: AttentionName | None,
    device: torch.device,
    trust_remote_code: bool,
    cache_folder: Path | None,
) -> SentenceTransformer:
    check_weights(base.name, folder, trust_remote_code)
    load = functools.partial(_read, base=base, dtype=dtype, attention=attention, trust_remote_code=trust_remote_code)
    return _loaded(load, folder, base.family, dtype, device, None if trust_remote_code else cache_folder)


def _loaded(
    load: Callable[[Path], Model], folder: Path, name: str, dtype: torch.dtype, device: torch.device, cache: Path | None
) -> Model:
    """What `load` makes of a folder, or of its converted copy in the cache."""
    if cache is not None:
        digest = hashlib.sha256(f"{folder.resolve()} {_stamp(folder)}".encode()).hexdigest()[:16]
        converted = cache / f"{name}-{str(dtype).removeprefix('torch.')}-{digest}"
        # Of several processes one converts: in the others, transformers saves no weights and no config.json.
        lead(functools.partial(_convert, load, folder, converted))
        folder = converted
    model = load(folder)
    if device.type == "cpu":
        _map_pages(transformer_of(model), folder)
    return model.to(device)


def _stamp(folder: Path) -> str:
    """Changes when a weight file does."""
    return " ".join(f"{p.name}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in sorted(folder.glob("*.safetensors")))


def _read(
    folder: Path, base: ResolvedBase, dtype: torch.dtype, attention: AttentionName | None, trust_remote_code: bool
) -> SentenceTransformer:
    """Read a model's folder on the CPU: its own modules, or encoder + pooling + normalisation for a raw encoder."""
    model_kwargs: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    if attention is not None:
        model_kwargs["attn_implementation"] = attention
    with no_bars():
        if (folder / "modules.json").is_file():
            model = SentenceTransformer(
                str(folder), device="cpu", model_kwargs=model_kwargs, trust_remote_code=trust_remote_code
            )
            _pool_by(base.pooling, model)
        else:
            code = {"trust_remote_code": trust_remote_code}
            encoder = Transformer(
                str(folder), model_kwargs=model_kwargs | code, processor_kwargs=dict(code), config_kwargs=dict(code)
            )
            pooling = Pooling(encoder.get_embedding_dimension(), base.pooling.split("+"))
            model = SentenceTransformer(modules=[encoder, pooling, Normalize()], device="cpu")
    for module in list(model)[1:]:
        module.to(dtype)  # Dense modules: the library reads them in float32, whatever the encoder's dtype
    return model.eval()


def _pool_by(mode: str, model: SentenceTransformer) -> None:
    """Put another pooling in the place of each that pools otherwise."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Pooling) and _mode(child) != mode:
                other = Pooling(child.embedding_dimension, mode.split("+"), child.include_prompt)
                parent.register_module(name, other)


def _mode(pooling: Pooling) -> str:
    return pooling.pooling_mode if isinstance(pooling.pooling_mode, str) else "+".join(pooling.pooling_mode)


def _convert(load: Callable[[Path], BaseModel], source: Path, folder: Path) -> None:
    """Save what `load` makes of `source` so that `folder` appears whole; a worker that was faster wins."""
    if folder.is_dir():
        return
    model = load(source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with no_bars():
            model.save(str(aside), create_model_card=False)
        with contextlib.suppress(OSError):  # another worker's folder is there: it holds the same bytes
            put_in_place(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def files_of(model: SentenceTransformer | CrossEncoder) -> dict[str, tuple[Path, str]]:
    """Of the weights that are a file's pages: name in the model -> that file, and the name in it. Files that have gone
    since, as an earlier search's cache may, are left out: their pages stay."""
    inner = transformer_of(model)
    own = {id(parameter): name for name, parameter in model.named_parameters()}
    files: dict[str, Path] = getattr(inner, FILES, {})
    gone = {file for file in set(files.values()) if not file.is_file()}
    there = files.keys() - {name for name, file in files.items() if file in gone}
    return {own[id(p)]: (files[name], name) for name, p in inner.named_parameters() if name in there}


def _map_pages(inner: PreTrainedModel, folder: Path) -> None:
    """Point each weight at the file's pages, where name, dtype and shape agree: workers share them, and they are read
    when first used. Files that name weights otherwise keep the copy that transformers made."""
    parameters = dict(inner.named_parameters())
    files: dict[str, Path] = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            for name in set(tensors.keys()) & parameters.keys():
                tensor = tensors.get_tensor(name)
                parameter = parameters[name]
                if tensor.dtype == parameter.dtype and tensor.shape == parameter.shape:
                    parameter.data = tensor
                    files[name] = file
    setattr(inner, FILES, files)  # copies of the model bring it along


@contextlib.contextmanager
def _no_load_report() -> Iterator[None]:
    """Keep transformers from telling that an untrained head is not in the base's files."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """Keep transformers' loading and writing bars off the live table."""
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
