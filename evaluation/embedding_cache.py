"""Embeddings kept on disk: one file for each model content, prompt, set of texts, precision and length."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from evaluation.embeddings import Encoder, Role, embed
from evaluation.errors import InputError
from evaluation.files import aside

CHUNK = 16_384  # texts encoded between two writes to the cache: 64 MiB of 1,024 dimensions


@dataclass(frozen=True)
class EmbeddingCache:
    """Embeddings of one model, as it is now, in a folder of .npy files that many processes may share.

    A file's name is a hash of all that decides its content: the model's content, its prompts, the role, the texts in
    their order, the precision, the longest input and the truncated size. A file is written aside and moved into place,
    so that a reader sees it whole, and of two processes that write the same one the last wins with equal content.

    Attributes:
        folder: where the files are.
        model_hash: of the model; see content_hash.
    """

    folder: Path
    model_hash: str

    @classmethod
    def of(cls, model: SentenceTransformer, folder: str | Path) -> EmbeddingCache:
        """A cache for the model with the weights it has now; after more training, make another."""
        return cls(Path(folder), content_hash(model))

    def path(self, model: SentenceTransformer, texts: Sequence[str], role: Role) -> Path:
        """The file of these texts' embeddings."""
        digest = hashlib.sha256()
        for text in texts:
            data = text.encode()
            digest.update(len(data).to_bytes(8, "little"))  # else ["ab"] and ["a", "b"] were one
            digest.update(data)
        settings = {
            "model": self.model_hash,
            "prompts": model.prompts,
            "role": role,
            "texts": digest.hexdigest(),
            "precision": _precision(model),
            "max_length": model.max_seq_length,
            "truncate_dim": model.truncate_dim,
        }
        name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{name[:40]}.npy"

    def embed(
        self, model: Encoder, texts: Sequence[str], role: Role, batch_size: int = 64, progress: bool = False
    ) -> NDArray[np.float32]:
        """As `embed`, read from the folder where the texts were encoded before: a read-only memory map, (N, D) float32.

        Raises:
            InputError: as `embed`; another kind of encoder; a file that holds another number of rows or dimensions.
        """
        if not isinstance(model, SentenceTransformer):
            raise InputError(f"{type(model).__name__} with an embedding cache, expected a SentenceTransformer")
        path = self.path(model, texts, role)
        if not path.exists():
            self._write(path, model, texts, role, batch_size, progress)
        try:
            vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise InputError(f"{path}: not a file of embeddings ({error}); delete it to have it made anew") from None
        expected = (len(texts), _dimension(model))
        if vectors.shape != expected or vectors.dtype != np.float32:
            raise InputError(
                f"{path}: cached embeddings are {vectors.dtype} {vectors.shape}, expected float32 {expected} of this "
                "model; delete the file to have it made anew"
            )
        return vectors

    def _write(
        self, path: Path, model: SentenceTransformer, texts: Sequence[str], role: Role, batch_size: int, progress: bool
    ) -> None:
        # Longest first over all chunks: each batch holds texts of like length, and memory runs out early or never.
        order = np.argsort([-len(text) for text in texts], kind="stable")
        shape = (len(texts), _dimension(model))
        with aside(path) as draft:
            kept = np.lib.format.open_memmap(draft, mode="w+", dtype=np.float32, shape=shape)
            for start in range(0, len(texts), CHUNK):
                places = order[start : start + CHUNK]
                vectors = embed(model, [texts[place] for place in places], role, batch_size, progress)
                kept[places] = vectors
            kept.flush()


def embed_cached(
    encoder: Encoder,
    texts: Sequence[str],
    role: Role,
    batch_size: int = 64,
    progress: bool = False,
    cache: EmbeddingCache | None = None,
) -> NDArray[np.float32]:
    """As `embed`, through a cache where there is one.

    Raises:
        InputError: as `embed`; a cache with another kind of encoder.
    """
    if cache is None:
        return embed(encoder, texts, role, batch_size, progress)
    return cache.embed(encoder, texts, role, batch_size, progress)


def content_hash(model: SentenceTransformer) -> str:
    """sha256 of what decides a model's embeddings: weights, architecture, pooling, tokenizer; not its name or place."""
    digest = hashlib.sha256()
    for module in model:
        settings: dict[str, Any] = getattr(module, "get_config_dict", dict)()
        digest.update(f"{type(module).__name__} {json.dumps(settings, sort_keys=True, default=str)}".encode())
        config = getattr(getattr(module, "auto_model", None), "config", None)
        if config is not None:
            known = {k: v for k, v in config.to_dict().items() if k not in ("_name_or_path", "transformers_version")}
            digest.update(json.dumps(known, sort_keys=True, default=str).encode())
    digest.update(_tokenizer_text(model.tokenizer).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(data.data)
    return digest.hexdigest()


def _tokenizer_text(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return json.dumps(tokenizer.get_vocab(), sort_keys=True)
    parts = json.loads(backend.to_str())
    # These two are set anew at each call and say nothing of the tokenizer itself.
    return json.dumps({key: part for key, part in parts.items() if key not in ("truncation", "padding")})


def _dimension(model: SentenceTransformer) -> int:
    dimension = model.get_embedding_dimension()
    if dimension is None:
        raise InputError("the model does not state its embedding dimension, expected one to cache embeddings")
    return dimension


def _precision(model: SentenceTransformer) -> str:
    weights = "+".join(sorted({str(parameter.dtype) for parameter in model.parameters()}))
    device = model.device.type
    return f"{weights} autocast {torch.get_autocast_dtype(device)}" if torch.is_autocast_enabled(device) else weights
