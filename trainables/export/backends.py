"""ONNX and OpenVINO: the encoder of a saved model in another runtime's format, in the layout of sentence-transformers'
own backends (`onnx/model.onnx`, `openvino/openvino_model.xml`).

sentence-transformers converts with optimum, whose releases want transformers below 5 (optimum-onnx 0.1.0) or below 5.6
and huggingface-hub below 1.22 (optimum-intel 2.2.0). So the encoder is traced by torch itself, and the runtimes are
called without optimum.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers.modeling_outputs import BaseModelOutput

from evaluation.errors import InputError

Format = Literal["safetensors", "onnx", "openvino"]
FILES = {"onnx": "onnx/model.onnx", "openvino": "openvino/openvino_model.xml"}
# What each extra of pyproject.toml installs, by module.
NEEDED = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino", "nncf")}
OPSET = 18
HIDDEN = "last_hidden_state"


def check_installed(target: Format) -> None:
    """Check that the packages which a format needs are installed.

    Raises:
        InputError: one is not.
    """
    missing = [name for name in NEEDED.get(target, ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"--format {target}: {missing[0]} is not installed, expected after: pip install embtune[{target}]"
        )


def write_backend(model: SentenceTransformer, folder: Path, target: Literal["onnx", "openvino"], int8: bool) -> None:
    """Write the encoder of a float32 model on the CPU below `folder`; its saved model lies there already.

    int8: weights of linear layers in 8 bits; ONNX quantises their inputs on the fly, too.
    """
    path = folder / FILES[target]
    path.parent.mkdir()
    if target == "onnx":
        plain = path.with_name("float32.onnx") if int8 else path
        _trace(model, plain)
        if int8:
            from onnxruntime.quantization import QuantType, quantize_dynamic

            quantize_dynamic(
                plain, path, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"]
            )
            plain.unlink()
        return
    import openvino

    traced = path.with_name("traced.onnx")
    _trace(model, traced)
    converted = openvino.Core().read_model(traced)  # openvino.convert_model tells its makers of each call
    if int8:
        os.environ.setdefault("NNCF_CI", "1")  # or it does so, too
        import nncf

        converted = nncf.compress_weights(converted, mode=nncf.CompressWeightsMode.INT8_SYM)
    openvino.save_model(converted, path, compress_to_fp16=False)
    del converted
    traced.unlink()


def load_backend(folder: Path, target: Format, trust_remote_code: bool = False) -> SentenceTransformer:
    """A saved model on the CPU whose encoder runs in the given format's runtime: prompts, tokenizer and pooling are
    the saved model's own.

    Args:
        trust_remote_code: the folder's own code is run.

    Raises:
        InputError: the runtime is not installed, or the folder has no such file.
    """
    check_installed(target)
    options = {"use_safetensors": True}
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs=options, trust_remote_code=trust_remote_code)
    if target == "safetensors":
        return model
    path = folder / FILES[target]
    if not path.is_file():
        raise InputError(f"{folder}: no {FILES[target]}, expected a model that was exported with --format {target}")
    encoder: Any = model[0]
    names = _inputs(model)
    encoder.model = _Runtime(encoder.model.config, names, (_onnx if target == "onnx" else _openvino)(path))
    return model


class _Runtime(torch.nn.Module):
    """Stands in the place of a transformers encoder."""

    def __init__(self, config: Any, names: list[str], run: Callable[[dict[str, np.ndarray]], np.ndarray]) -> None:
        super().__init__()
        self.config, self._names, self._run = config, names, run

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        **_: Any,  # how to return, which transformers' models are told and a runtime is not
    ) -> BaseModelOutput:
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        hidden = self._run({name: given[name].cpu().numpy() for name in self._names})  # type: ignore[union-attr]
        return BaseModelOutput(last_hidden_state=torch.from_numpy(hidden))


def _onnx(path: Path) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda tensors: session.run([HIDDEN], tensors)[0]


def _openvino(path: Path) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    import openvino

    # Left alone, OpenVINO computes in bf16 where the processor can.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return lambda tensors: compiled(tensors)[0].copy()


def _inputs(model: SentenceTransformer) -> list[str]:
    """Names of the tensors that the encoder is called with."""
    features = model.preprocess(["a"])
    return [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in features]


def _trace(model: SentenceTransformer, path: Path) -> None:
    names = _inputs(model)
    features = model.preprocess(["a b c", "a"])
    encoder: Any = model.transformers_model
    attention = encoder.config._attn_implementation
    encoder.set_attn_implementation("eager")  # the one that every architecture has, and that traces to plain products

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            hidden: torch.Tensor = self.encoder(**dict(zip(names, tensors, strict=True)))[0]
            return hidden

    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the tracer, on constants that hold for every text
            torch.onnx.export(
                Encoder().eval(),
                tuple(features[name] for name in names),
                str(path),
                input_names=names,
                output_names=[HIDDEN],
                dynamic_axes={name: {0: "batch", 1: "sequence"} for name in (*names, HIDDEN)},
                opset_version=OPSET,
                dynamo=False,
            )
    finally:
        encoder.set_attn_implementation(attention)
