"""What a model's own small files state: prompts, pooling, length, padding and the Dense modules after the pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evaluation.errors import InputError
from trainables.bases import hub

POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}


@dataclass(frozen=True)
class Dense:
    """A linear module after the pooling.

    Attributes:
        inputs, outputs: sizes.
        bias: it has one.
        activation: torch's class, in full.
        residual: its input is added to its output.
    """

    inputs: int
    outputs: int
    bias: bool = False
    activation: str = "torch.nn.modules.linear.Identity"
    residual: bool = False

    @property
    def parameters(self) -> int:
        """How many it has."""
        linears = 2 if self.residual and self.inputs != self.outputs else 1
        return linears * self.inputs * self.outputs + self.bias * self.outputs


@dataclass(frozen=True)
class OwnFiles:
    """The facts that a model's files state; None: they do not.

    Attributes:
        figures: config.json.
        packaged: it brings sentence-transformers' modules.json.
        prompts: name -> text of config_sentence_transformers.json; empty where it states none.
        dense: None: it is no packaged model, or out of reach.
        normalize: its last module brings vectors to length 1; likewise.
    """

    figures: dict[str, Any] | None
    packaged: bool
    prompts: dict[str, str]
    pooling: str | None
    max_length: int | None
    padding: str | None
    dense: tuple[Dense, ...] | None
    normalize: bool | None

    @classmethod
    def read(cls, base: str, revision: str | None) -> OwnFiles:
        """Look for the files where `hub.read_json` does.

        Raises:
            InputError: a folder that holds an adapter instead of a model, or a file that is not JSON.
        """

        def read(name: str) -> Any:
            return hub.read_json(base, name, revision)

        modules: list[dict[str, Any]] | None = read("modules.json")
        figures = read("config.json")
        if figures is None and modules and (path := modules[0].get("path")):  # older packages: a folder of its own
            figures = read(f"{path}/config.json")
        adapter = read("adapter_config.json")
        if adapter is not None:
            raise InputError(
                f"base: {base} holds an adapter of {adapter.get('base_model_name_or_path')}, expected a model: merge "
                "it (PEFT's merge_and_unload), or name the model that it is put on"
            )
        return cls(
            figures=figures,
            packaged=modules is not None,
            prompts=_prompts(read("config_sentence_transformers.json") or {}),
            pooling=_pooling(modules, read),
            max_length=_max_length(read),
            padding=(read("tokenizer_config.json") or {}).get("padding_side"),
            dense=None if modules is None else tuple(_dense(modules, read)),
            normalize=None if modules is None else any(m["type"].endswith(".Normalize") for m in modules),
        )

    @classmethod
    def unread(cls) -> OwnFiles:
        """Of a base of which no file is looked at."""
        return cls(None, False, {}, None, None, None, None, None)

    def query(self, name: str = "query") -> str | None:
        """The prompt of a query; None where none is stated.

        sentence-transformers writes empty query and document prompts for a model that was given none, so two empty
        ones state nothing.
        """
        found = self.prompts.get("query", self.prompts.get(name))
        return found if found or self._passage else None

    def passage(self, name: str = "query") -> str | None:
        """The prompt of a passage; None likewise."""
        return self._passage if self._passage or self.query(name) else None

    @property
    def _passage(self) -> str | None:
        """In the order in which encode_document looks for it."""
        names = ("document", "passage", "corpus")
        return next((self.prompts[name] for name in names if name in self.prompts), None)


def _prompts(stated: dict[str, Any]) -> dict[str, str]:
    return {name: text for name, text in (stated.get("prompts") or {}).items() if isinstance(text, str)}


def _pooling(modules: list[dict[str, Any]] | None, read: Any) -> str | None:
    for module in modules or []:
        if module["type"].endswith(".Pooling"):
            stated = read(f"{module['path']}/config.json") or {}
            mode = stated.get("pooling_mode")
            if mode is not None:
                return mode if isinstance(mode, str) else "+".join(mode)
            return "+".join(name for key, name in POOLINGS.items() if stated.get(key)) or "mean"
    return None


def _dense(modules: list[dict[str, Any]], read: Any) -> list[Dense]:
    found = []
    for module in modules:
        if module["type"].endswith(".Dense"):
            stated = read(f"{module['path']}/config.json") or {}
            found.append(
                Dense(
                    inputs=stated["in_features"],
                    outputs=stated["out_features"],
                    bias=stated.get("bias", True),
                    activation=stated.get("activation_function", "torch.nn.modules.activation.Tanh"),
                    residual=stated.get("use_residual", False),
                )
            )
    return found


def _max_length(read: Any) -> int | None:
    """The length that sentence-transformers or the tokenizer states; absurdly large means none."""
    stated = (read("sentence_bert_config.json") or {}).get("max_seq_length")
    stated = stated or (read("tokenizer_config.json") or {}).get("model_max_length")
    return int(stated) if stated and stated < 1_000_000 else None
