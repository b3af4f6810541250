"""Whether the search reads a base as its authors meant it: 16 texts as the search embeds them, held against plain
float32 eager sentence-transformers, one text at a time. A base that is loaded wrong trains and scores, only badly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from evaluation.embeddings import unit_rows
from evaluation.errors import InputError
from trainables.bases import hub
from trainables.bases.families import ResolvedBase, resolve_base
from trainables.config import TrialConfig
from trainables.model.build import build_model
from trainables.model.loaded import no_bars
from trainables.model.precision import resolve_attention, resolve_device, resolve_precision
from trainables.model.weights import check_weights

MIN_COSINE = 0.999  # 8 bits of mantissa (bf16) cost about 0.0001 on a real base
TEXTS = (
    "Le SG",
    "Qui recouvre l'impôt sur le revenu ?",
    "La dotation globale de fonctionnement est versée par l'État aux communes.",
    "What is photosynthesis?",
    "A lease is a contract by which one party conveys the use of an asset to another for a specified time.",
    "Le compte épargne-temps permet à l'agent de garder des jours de congé qu'il n'a pas pris dans l'année, et de les "
    "prendre plus tard, de se les faire payer ou de les verser à la retraite additionnelle de la fonction publique.",
    "Taux d'intérêt légal au second semestre",
    "The mitochondrion is an organelle found in the cells of most eukaryotes; it generates most of the cell's supply "
    "of adenosine triphosphate, which is used as a source of chemical energy.",
    "42",
    "Comment déclarer un accident du travail survenu hors des locaux de l'entreprise ?",
    "Marché public : contrat conclu à titre onéreux par un acheteur public avec un opérateur économique.",
    "Who wrote the Divine Comedy, and in which language?",
    "La Loire est le plus long fleuve de France : elle prend sa source au mont Gerbier-de-Jonc et se jette dans "
    "l'océan Atlantique à Saint-Nazaire.",
    "GDP, CPI and PPP",
    "Un chat dort sur le fauteuil.",
    "Water boils at a lower temperature on a mountain than at sea level because the pressure of the air is lower.",
)


def parity_key(config: TrialConfig, device: str | torch.device | None = None) -> tuple[str, ...]:
    """What decides how a base is read on a device: trials with equal keys need one check."""
    base = resolve_base(config)
    precision = "fp32" if config.method == "full" else resolve_precision(config, device).name
    attention, _ = resolve_attention(config, base, device)
    read = (base.query_prompt, base.passage_prompt, base.pooling)
    return (config.base, config.revision or "", precision, attention or "its own", *read)


def check_base(config: TrialConfig, cache: Path | None = None, device: str | torch.device | None = None) -> float:
    """The lowest cosine, of 16 texts as queries and as passages, between the base as the trial loads it (its precision,
    attention, pooling, prompts, a padded batch) and plain float32 eager sentence-transformers.

    What the spec itself sets (pooling, prompts, maximum length) is not held against the base's files.

    Args:
        cache: where converted copies of bases are kept, as in `build_model`.

    Raises:
        InputError: a cosine below 0.999, with what differs; weights that the files lack, or hold beyond the encoder's.
    """
    place = resolve_device(device)
    base = resolve_base(config)
    folder, _ = hub.fetch(config.base, config.revision, code=config.trust_remote_code)
    check_weights(config.base, folder, config.trust_remote_code)
    plain = _plain(config, base, folder).to(place)
    expected_ND = _one_by_one(plain, base)
    trial = config if config.method == "full" else config.model_copy(update={"method": "none"})
    model = build_model(trial, place, cache_folder=cache).eval()
    lowest = _lowest(_batched(model), expected_ND)
    if not lowest >= MIN_COSINE:
        reasons = "; ".join(_differences(trial, model, plain, base, expected_ND, place)) or "the weights as loaded"
        raise InputError(
            f"base: {config.base} is not embedded as plain float32 sentence-transformers embeds it (lowest cosine "
            f"{lowest:.4f}, expected at least {MIN_COSINE}): {reasons}"
        )
    return lowest


def _plain(config: TrialConfig, base: ResolvedBase, folder: Path) -> SentenceTransformer:
    """The base as sentence-transformers alone loads it; for a raw encoder, which states no pooling, with the base's."""
    options: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager", "use_safetensors": True}
    code: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    with no_bars():
        if base.packaged:
            model = SentenceTransformer(
                str(folder), device="cpu", model_kwargs=options, trust_remote_code=config.trust_remote_code
            )
        else:
            encoder = Transformer(
                str(folder), model_kwargs=options | code, processor_kwargs=dict(code), config_kwargs=dict(code)
            )
            pooling = Pooling(encoder.get_embedding_dimension(), base.pooling.split("+"))
            model = SentenceTransformer(modules=[encoder, pooling, Normalize()], device="cpu")
    if config.pooling is not None:
        for place, module in enumerate(model):
            if isinstance(module, Pooling):
                model[place] = Pooling(module.embedding_dimension, [config.pooling], module.include_prompt)
    model.max_seq_length = base.max_length
    return model.eval()


def _one_by_one(model: SentenceTransformer, base: ResolvedBase) -> NDArray[np.float32]:
    """(N, D): texts as queries, then as passages, none of them padded."""
    prompts = (base.query_prompt, base.passage_prompt)
    return _rows(model.encode([text], prompt=prompt, show_progress_bar=False) for prompt in prompts for text in TEXTS)


def _batched(model: SentenceTransformer, size: int = len(TEXTS)) -> NDArray[np.float32]:
    texts = list(TEXTS)
    return _rows(
        encode(texts, batch_size=size, show_progress_bar=False)
        for encode in (model.encode_query, model.encode_document)
    )


def _rows(parts: Iterator[Any]) -> NDArray[np.float32]:
    return unit_rows(np.concatenate([np.asarray(part, dtype=np.float32) for part in parts]))


def _lowest(one_ND: NDArray[np.float32], other_ND: NDArray[np.float32]) -> float:
    return float((one_ND * other_ND).sum(axis=1).min()) if one_ND.shape == other_ND.shape else -1.0


def _differences(
    config: TrialConfig,
    model: SentenceTransformer,
    plain: SentenceTransformer,
    base: ResolvedBase,
    expected_ND: NDArray[np.float32],
    place: torch.device,
) -> Iterator[str]:
    """What, put right alone, brings the two together; what differs in their settings."""
    ours, theirs = ([_pooling(module) for module in each if isinstance(module, Pooling)] for each in (model, plain))
    if ours != theirs:
        yield f"pooling {', '.join(ours)} here, {', '.join(theirs)} in its files"
    stated = {"query": base.query_prompt, "document": base.passage_prompt}
    if model.prompts != stated:
        yield f"prompts {model.prompts} here, {stated} expected"
    if _lowest(_batched(model, 1), expected_ND) >= MIN_COSINE:
        yield "padding: one text at a time agrees"
    attention = str(getattr(model.transformers_model.config, "_attn_implementation", ""))  # type: ignore[union-attr]
    if attention != "eager":
        eager = build_model(config.model_copy(update={"attention": "eager"}), place)
        if _lowest(_batched(eager), expected_ND) >= MIN_COSINE:
            yield f"kernel: {attention} attention; eager agrees"
    precision = resolve_precision(config, place).name
    if precision != "fp32" and _lowest(_batched(build_model(config, place, dtype=torch.float32)), expected_ND) >= (
        MIN_COSINE
    ):
        yield f"precision: {precision}; fp32 agrees"


def _pooling(module: Pooling) -> str:
    return module.pooling_mode if isinstance(module.pooling_mode, str) else "+".join(module.pooling_mode)
