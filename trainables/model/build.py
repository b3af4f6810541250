"""A trial's model: the base, prompted and pooled as it should be, with its adapter. The base is loaded once a process.

Every model that build_model returns has modules of its own around weights that it shares with the cached base. Frozen
weights are only read. Whatever writes weights works on a copy: build_model clones them for method full.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import cast_adapter_dtype
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from evaluation.errors import InputError
from evaluation.files import put_in_place
from trainables.bases import hub
from trainables.bases.families import ResolvedBase, resolve_base
from trainables.config import TrialConfig
from trainables.distributed import lead
from trainables.model.adapters import lora_config, trained_names
from trainables.model.kept_tokens import KeptTokens
from trainables.model.precision import AttentionName, resolve_attention, resolve_device, resolve_weights

ADAPTER = "default"
KEPT_BASES = 2  # in a process, the least recently used leaves: a search over many bases must not fill a GPU with them


def build_model(
    config: TrialConfig,
    device: str | torch.device | None = None,
    *,
    dtype: torch.dtype | None = None,
    cache_folder: Path | None = None,
    keep_tokens: bool = False,
) -> SentenceTransformer:
    """The trial's model on `device` (none: the first GPU, else the CPU), ready to train: method decides what trains.

    lora: the base frozen in the trial's precision, a fresh adapter in float32, seeded by config.seed. full: every
    weight a float32 copy; the pooler, which gets no gradient, stays frozen. none: the base, frozen.
    dtype: of the frozen weights, instead of the precision's (float32 to merge). cache_folder: where a copy of the
    base converted to that dtype is kept, so that the workers of a machine map the same pages of it. keep_tokens: texts
    are tokenized once a process and base; not for what is saved, or timed with its tokenizer.
    The first call in a process loads the base; later calls take milliseconds.

    Raises InputError when the base or the targets cannot be resolved.
    """
    place = resolve_device(device)
    base = resolve_base(config)
    weights = resolve_weights(config, place, dtype)
    attention, _ = resolve_attention(config, base, place, dtype)
    folder, _ = hub.fetch(config.base, config.revision, code=config.trust_remote_code)
    key = (str(folder), base.pooling, weights, attention, str(place), config.trust_remote_code)
    loaded = _BASES.pop(key, None)
    if loaded is None:
        while len(_BASES) >= KEPT_BASES:
            _BASES.pop(next(iter(_BASES)))
        loaded = _load(folder, base, weights, attention, place, config.trust_remote_code, cache_folder), KeptTokens()
    _BASES[key] = loaded  # last: the most recently used
    untouched, tokens = loaded
    model = _copy_sharing_weights(untouched)
    if keep_tokens:
        tokens.keep_for(model[0])
    model.prompts = {"query": base.query_prompt, "document": base.passage_prompt}
    model.default_prompt_name = None
    model.max_seq_length = base.max_length
    if config.method == "lora":
        _add_adapter(model, config)
    elif config.method == "full":
        _train_all(model, config.last_n)
    return model


def training_prompts(model: SentenceTransformer, columns: list[str]) -> dict[str, str]:
    """The trainer's `prompts` argument: the first column is the anchor, the others are passages."""
    query, passage = model.prompts["query"] or "", model.prompts["document"] or ""
    return {column: passage if position else query for position, column in enumerate(columns)}


def own_weights(model: SentenceTransformer) -> SentenceTransformer:
    """Give the model a private copy of every weight, so that writing them leaves the cached base as it is."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def forget_bases() -> None:
    """Drop the bases that this process keeps."""
    _BASES.clear()


_BASES: dict[tuple[str, str, torch.dtype, str | None, str, bool], tuple[SentenceTransformer, KeptTokens]] = {}


def _transformer(model: SentenceTransformer) -> PreTrainedModel:
    inner = model.transformers_model
    if inner is None:
        raise InputError("base: has no transformers encoder (a static or bag-of-words model), expected one to adapt")
    return inner


def _add_adapter(model: SentenceTransformer, config: TrialConfig) -> None:
    inner = _transformer(model)
    inner.name_or_path = config.base  # what the adapter's own file names as its base, rather than a folder of ours
    with _seeded(config.seed):
        model.add_adapter(lora_config(config, inner))
    # Injected adapters take the base's dtype; 16-bit adapters lose small updates.
    cast_adapter_dtype(inner, ADAPTER)


def _train_all(model: SentenceTransformer, last_n: int | None) -> None:
    """Copy every weight and unfreeze it, or only the last n layers; never the pooler."""
    own_weights(model)
    inner = _transformer(model)
    trained = set(trained_names(inner, last_n))
    for name, parameter in inner.named_parameters():
        parameter.requires_grad_(name in trained)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from a generator seeded for this block only, on every device."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _copy_sharing_weights(base: SentenceTransformer) -> SentenceTransformer:
    """New modules around the same weight storage: each parameter is new and frozen, its data is the base's."""
    memo: dict[int, object] = {}
    for parameter in base.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for module in base.modules():
        # A tokenizer of 250,000 pieces takes a second to copy; only its Python attributes (maximum length) change.
        if isinstance(module, Transformer):
            memo[id(module.processor)] = copy.copy(module.processor)
    return copy.deepcopy(base, memo)


def _load(
    folder: Path,
    base: ResolvedBase,
    dtype: torch.dtype,
    attention: AttentionName | None,
    device: torch.device,
    trust_remote_code: bool,
    cache_folder: Path | None,
) -> SentenceTransformer:
    load = functools.partial(_read, base=base, dtype=dtype, attention=attention, trust_remote_code=trust_remote_code)
    if cache_folder is not None and not trust_remote_code:
        digest = hashlib.sha256(f"{folder.resolve()} {_stamp(folder)}".encode()).hexdigest()[:16]
        converted = cache_folder / f"{base.family}-{str(dtype).removeprefix('torch.')}-{digest}"
        # Of several processes one converts: in the others, transformers saves no weights and no config.json.
        lead(functools.partial(_convert, load, folder, converted))
        folder = converted
    model = load(folder)
    if device.type == "cpu":
        _map_pages(_transformer(model), folder)
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
            for module in model.modules():
                if isinstance(module, Pooling) and _mode(module) != base.pooling:
                    modes = base.pooling.split("+")
                    module.__init__(module.embedding_dimension, modes, module.include_prompt)
        else:
            code = {"trust_remote_code": trust_remote_code}
            encoder = Transformer(
                str(folder), model_kwargs=model_kwargs | code, processor_kwargs=dict(code), config_kwargs=dict(code)
            )
            pooling = Pooling(encoder.get_embedding_dimension(), base.pooling.split("+"))
            model = SentenceTransformer(modules=[encoder, pooling, Normalize()], device="cpu")
    return model.eval()


def _mode(pooling: Pooling) -> str:
    return pooling.pooling_mode if isinstance(pooling.pooling_mode, str) else "+".join(pooling.pooling_mode)


def _convert(load: Callable[[Path], SentenceTransformer], source: Path, folder: Path) -> None:
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


def _map_pages(inner: PreTrainedModel, folder: Path) -> None:
    """Point each weight at the file's pages, where name, dtype and shape agree: workers share them, and they are read
    when first used. Files that name weights otherwise keep the copy that transformers made."""
    parameters = dict(inner.named_parameters())
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            for name in set(tensors.keys()) & parameters.keys():
                tensor = tensors.get_tensor(name)
                parameter = parameters[name]
                if tensor.dtype == parameter.dtype and tensor.shape == parameter.shape:
                    parameter.data = tensor


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
