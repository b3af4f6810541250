"""A classification trial on each architecture: trained, saved, gone on with, merged, exported: the same predictions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, pipeline

from evaluation.errors import InputError
from tests.conftest import ARCHITECTURES, Architecture, TinyBase
from tests.kit.labelled import labelled_data
from trainables.classification.export import ExportError, export_classifier, reloaded, trained_classifier
from trainables.classification.kind import ClassLoss, balanced, pieces_of
from trainables.classification.predict import logits_of
from trainables.classification.prepared import LabelledData
from trainables.config import ClassifierConfig
from trainables.export.export import Form
from trainables.export.mix import Member, Mix, mixed_classifier
from trainables.model.classifier import build_classifier
from trainables.model.heads import head_names, trained_head
from trainables.train import train
from trainables.training.checkpoint import trainable_parameters
from trainables.training.rungs import HEAD, Rung


def config_of(base: Path, data: LabelledData, **fields: object) -> ClassifierConfig:
    settings: dict[str, object] = {
        "base": str(base),
        "labels": data.labels,
        "max_length": 24,
        "r": 4,
        "lr": 2e-2,
        "epochs": 4,
        "batch_size": 8,
        "rungs": 2,
        "precision": "fp32",
        **fields,
    }
    return ClassifierConfig.model_validate(settings)


def told(_: Rung) -> None:
    """What a trial reports to whoever does not listen."""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_trained_head_comes_back_with_its_adapter_merged_and_exported(
    architecture: Architecture, tiny_base: TinyBase, tmp_path: Path
) -> None:
    """On single texts and on pairs by turns, the same logits to 1e-5 at each station."""
    pairs = architecture in ("camembert", "deberta-v2")
    data = labelled_data(tmp_path, 8, pairs)
    config = config_of(tiny_base(architecture), data, epochs=1, batch_size=4)
    best = train(config, data, told, folder=tmp_path / "trial")
    checkpoint = Path(best.folder)
    texts = data.dev.texts
    untrained = logits_of(build_classifier(config, "cpu"), texts)
    model = trained_classifier(config, checkpoint, "cpu")
    expected = logits_of(model, texts)
    assert not np.allclose(expected, untrained, atol=1e-3)
    inner = model.transformers_model
    fresh = build_classifier(config, "cpu").transformers_model
    assert inner is not None
    assert fresh is not None
    for name in trained_head(inner, config):
        assert not torch.equal(inner.get_parameter(name), fresh.get_parameter(name)), f"{name} did not train"
    assert logits_of(mixed_classifier(Mix.of(config, checkpoint), "cpu"), texts) == pytest.approx(expected, abs=1e-5)
    dest = tmp_path / "model"
    mixed_classifier(Mix.of(config, checkpoint), "cpu").save_pretrained(str(dest), create_model_card=False)
    assert logits_of(CrossEncoder(str(dest), device="cpu"), texts) == pytest.approx(expected, abs=1e-5)
    assert AutoModelForSequenceClassification.from_pretrained(dest).config.id2label == dict(enumerate(data.labels))
    if not pairs:
        classify: Any = pipeline("text-classification", model=str(dest), top_k=None, device="cpu")
        said = {one["label"]: one["score"] for one in classify([str(texts[0])])[0]}
        powers = np.exp(expected[0] - expected[0].max())
        assert said == pytest.approx(dict(zip(data.labels, powers / powers.sum(), strict=True)), abs=1e-5)


@pytest.fixture(scope="module")
def learned(
    tiny_base: TinyBase, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ClassifierConfig, LabelledData, Rung]:
    """A trial that was trained for some steps."""
    folder = tmp_path_factory.mktemp("learned")
    data = labelled_data(folder, 20)
    config = config_of(tiny_base("bert"), data, epochs=6)
    rungs: list[Rung] = []
    best = train(config, data, rungs.append, folder=folder / "trial")
    assert [rung.rung for rung in rungs] == [1, 2]
    return config, data, best


def test_a_trial_learns_what_its_data_teaches(learned: tuple[ClassifierConfig, LabelledData, Rung]) -> None:
    config, _, best = learned
    assert best.metrics["macro_f1"] > 0.6  # chance is a third
    assert best.scores().outcome is not None
    assert (best.trainable, best.total) == trainable_parameters(build_classifier(config, "cpu"))


def test_an_interrupted_trial_goes_on_to_the_same_scores(
    learned: tuple[ClassifierConfig, LabelledData, Rung], tmp_path: Path
) -> None:
    config, data, best = learned

    class Killed(BaseException):
        pass

    def kill(rung: Rung) -> None:
        raise Killed

    with pytest.raises(Killed):
        train(config, data, kill, folder=tmp_path)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] != []
    again = train(config, data, told, folder=tmp_path)
    assert again.metrics == best.metrics
    assert np.array_equal(again.scores().values("log_loss"), best.scores().values("log_loss"))


def test_a_step_in_pieces_is_the_same_step(tiny_base: TinyBase, tmp_path: Path) -> None:
    data = labelled_data(tmp_path, 8)
    whole = config_of(tiny_base("bert"), data, epochs=1, dropout=0.0, class_weights="balanced", label_smoothing=0.1)
    cut = whole.model_copy(update={"micro_batch_tokens": 64})
    assert (pieces_of(whole, 8), pieces_of(cut, 8)) == (1, 4)
    torch.manual_seed(0)
    weights = balanced(data.true_N, 3)
    gradients = []
    for pieces in (1, 4):
        model = build_classifier(whole, "cpu").eval()  # without dropout
        loss = ClassLoss(model, weights, 0.1)
        size = 8 // pieces
        for at in range(0, 8, size):
            labels = torch.tensor(data.true_N[at : at + size])
            (loss([list(map(str, data.texts[at : at + size]))], labels) / pieces).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    at_once, cut_up = gradients
    assert torch.allclose(at_once, cut_up, atol=1e-6)
    assert train(cut, data, told, folder=tmp_path / "trial").metrics["accuracy"] >= 0


def test_class_weights_are_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    true_N = np.array([0, 0, 0, 1, 2, 2])
    assert balanced(true_N, 3).tolist() == pytest.approx(
        compute_class_weight("balanced", classes=np.arange(3), y=true_N).tolist()
    )


@pytest.mark.parametrize(
    ("head", "frozen"), [("fair", []), ("as_published", ["pooler.dense.weight", "pooler.dense.bias"])]
)
def test_debertas_pooler_trains_unless_the_head_is_as_published(
    head: str, frozen: list[str], tiny_base: TinyBase, tmp_path: Path
) -> None:
    data = labelled_data(tmp_path, 8)
    model = build_classifier(config_of(tiny_base("deberta-v2"), data, head=head), "cpu").transformers_model
    assert model is not None
    assert [name for name in head_names(model) if not model.get_parameter(name).requires_grad] == frozen
    assert all(model.get_parameter(name).dtype == torch.float32 for name in head_names(model))


def test_a_full_fine_tuning_trains_and_exports_every_weight(tiny_base: TinyBase, tmp_path: Path) -> None:
    data = labelled_data(tmp_path, 8)
    config = config_of(tiny_base("deberta-v2"), data, method="full", lr=1e-3, epochs=1)
    best = train(config, data, told, folder=tmp_path / "trial")
    assert best.trainable == best.total
    expected = logits_of(trained_classifier(config, Path(best.folder), "cpu"), data.dev.texts)
    mixed = mixed_classifier(Mix.of(config, Path(best.folder)), "cpu")
    assert logits_of(mixed, data.dev.texts) == pytest.approx(expected, abs=1e-5)


def test_the_mean_of_two_trials_averages_bodies_and_heads(
    learned: tuple[ClassifierConfig, LabelledData, Rung], tmp_path: Path
) -> None:
    config, data, best = learned
    other = config.model_copy(update={"r": 2, "alpha": 4.0, "epochs": 2.0})
    second = train(other, data, told, folder=tmp_path / "trial")
    members = (Member(config, Path(best.folder), 0.5), Member(other, Path(second.folder), 0.5))
    states = [mixed_classifier(Mix.of(m.config, m.checkpoint), "cpu").state_dict() for m in members]
    mean = mixed_classifier(Mix(members), "cpu").state_dict()
    for name in ("0.model.classifier.weight", "0.model.bert.encoder.layer.0.attention.self.query.weight"):
        assert torch.allclose(mean[name], (states[0][name] + states[1][name]) / 2, atol=1e-6)
    stranger = replace(members[1], config=other.model_copy(update={"labels": ("x", "y", "z")}))
    with pytest.raises(InputError, match="labels differs"):
        mixed_classifier(Mix((members[0], stranger)), "cpu")


def test_an_export_without_its_head_is_refused(
    learned: tuple[ClassifierConfig, LabelledData, Rung], tmp_path: Path
) -> None:
    config, data, best = learned
    headless = tmp_path / "checkpoint"
    headless.mkdir()
    for path in Path(best.folder).iterdir():
        if path.name != HEAD:
            (headless / path.name).symlink_to(path)
    with pytest.raises(InputError, match=r"head\.safetensors: no such file, expected the head"):
        export_classifier(Mix.of(config, headless), tmp_path / "model", data.dev.texts, {}, "card", device="cpu")
    form = Form(format="onnx")
    with pytest.raises(InputError, match="--format onnx: not for a classifier"):
        export_classifier(Mix.of(config, Path(best.folder)), tmp_path / "model", data.dev.texts, {}, "", form=form)
    assert not (tmp_path / "model").exists()


def test_an_export_is_checked_by_what_a_fresh_process_predicts(
    learned: tuple[ClassifierConfig, LabelledData, Rung], tmp_path: Path
) -> None:
    config, data, best = learned
    dest = tmp_path / "model"
    mix = Mix.of(config, Path(best.folder))
    found = export_classifier(mix, dest, data.dev.texts, {"search": "s"}, "card", device="cpu")
    assert found.gap < 1e-5
    assert json.loads((dest / "embtune.json").read_text())["task"] == "classification"
    assert (dest / "adapter" / HEAD).is_file()
    (dest / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ExportError, match="does not load in a fresh process"):
        reloaded(dest, data.dev.texts)


def test_pairs_are_exported_as_crossencoder_and_transformers_load_them(tiny_base: TinyBase, tmp_path: Path) -> None:
    """In bf16, which moves a probability by more than float32 may."""
    data = labelled_data(tmp_path, 8, pairs=True)
    config = config_of(tiny_base("deberta-v2"), data, epochs=1)
    best = train(config, data, told, folder=tmp_path / "trial")
    mix = Mix.of(config, Path(best.folder))
    found = export_classifier(mix, tmp_path / "model", data.dev.texts, {}, "", Form(precision="bf16"), device="cpu")
    assert 0 < found.gap < found.tolerance == 0.05
