"""What is done to a question: language, translation, spelling, acronyms, and how each is switched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel

from evaluation.errors import InputError
from search.app.acronyms import expansions, written_out
from search.app.cleanup import CleanUp
from search.app.language import Languages
from search.app.spelling import Spelling
from search.app.translation import Translator
from tests.conftest import TEXTS, TinyBase

Made = Callable[..., CleanUp]


@pytest.fixture(scope="module")
def spelling() -> Spelling:
    return Spelling([*TEXTS, "La DGFiP gère le recouvremment amiable."])  # a word as the corpus spells it


@pytest.fixture(scope="module")
def clean_up(spelling: Spelling) -> CleanUp:
    return CleanUp(Languages(["fr", "en"]), spelling, {"DGFiP": "direction générale des Finances publiques"})


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Marian model, as opus-mt is saved, whose decoder has learned nothing."""
    folder = tmp_path_factory.mktemp("marian")
    (folder / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "texts.txt"), model_prefix=str(folder / "spm"), vocab_size=100, minloglevel=2
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes((folder / "spm.model").read_bytes())
    words = ["</s>", "<unk>", *(pieces.id_to_piece(i) for i in range(3, len(pieces))), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"source_lang": "en", "target_lang": "fr"}))
    torch.manual_seed(0)
    model = MarianMTModel(
        MarianConfig(
            vocab_size=len(words),
            d_model=16,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=1,
            decoder_attention_heads=1,
            pad_token_id=len(words) - 1,
            eos_token_id=0,
            forced_eos_token_id=0,
            decoder_start_token_id=len(words) - 1,
            max_position_embeddings=64,
        )
    )
    model.save_pretrained(folder)
    return folder


def test_a_misspelt_word_becomes_the_corpus_word_first(spelling: Spelling) -> None:
    assert spelling.corrections("le secretariat genéral et la retraitte") == {
        "secretariat": "secrétariat",
        "genéral": "général",
        "retraitte": "retraite",
    }
    assert spelling.corrections("Dotattion") == {"Dotattion": "Dotation"}


@pytest.mark.parametrize(
    "words", ["recouvremment", "DGFIP", "DGFiP", "IMPOTS", "SG", "n7", "123456", "Xyzzyqwk", "abc", "a" * 500]
)
def test_what_the_corpus_has_capitals_digits_and_unknown_words_are_not_touched(spelling: Spelling, words: str) -> None:
    assert spelling.corrections(words) == {}


def test_each_step_is_shown_and_can_be_undone(clean_up: CleanUp) -> None:
    asked = "quelle est la dotattion de la DGFiP pour la retraitte ?"
    cleaned = clean_up.clean(asked)
    assert cleaned.searched == "quelle est la dotation de la DGFiP pour la retraite ?"
    assert [(step.kind, step.before, step.done) for step in cleaned.steps] == [
        ("language", "fr", True),
        ("spelling", "dotattion", True),
        ("spelling", "retraitte", True),
        ("acronym", "DGFiP", False),
    ]
    one = clean_up.clean(asked, off=frozenset({"spelling:retraitte"}))
    assert "dotation" in one.searched
    assert "retraitte" in one.searched
    assert [step.done for step in one.steps] == [True, True, False, False]
    assert clean_up.clean(asked, off=frozenset({"spelling"})).searched == asked
    assert clean_up.clean(asked, off=frozenset({"all"})).steps == ()
    expanded = clean_up.clean(asked, on=frozenset({"acronym:DGFiP"})).searched
    assert "la DGFiP (direction générale des Finances publiques) pour" in expanded


def test_a_question_in_another_language_is_not_corrected_as_french(clean_up: CleanUp) -> None:
    cleaned = clean_up.clean("what does the tax office do for retiremment of companies")
    assert cleaned.searched == cleaned.asked
    assert [(step.kind, step.before) for step in cleaned.steps] == [("language", "en")]
    # With the language step undone the question is taken to be in the corpus's language.
    french = clean_up.clean("what does the office do for the retraitte", off=frozenset({"language"}))
    assert "retraite" in french.searched


@pytest.mark.parametrize(("language", "found"), [("en", {"housse": "house"}), ("sv", {})])
def test_a_corpus_of_another_language_has_its_own_words(language: str, found: dict[str, str]) -> None:
    spelling = Spelling(["Skatteverket beslutar about retirement"], language)
    assert spelling.corrections("skateverket beslutar") == {"skateverket": "skatteverket"}
    assert spelling.corrections("housse") == found, "its dictionary where there is one, and never the French one"
    cleaned = CleanUp(Languages([language]), spelling).clean("skateverket beslutar retirment")
    assert cleaned.searched == "skatteverket beslutar retirement"
    assert [step.kind for step in cleaned.steps] == ["spelling", "spelling"]


def test_languages_are_those_named_and_a_doubtful_one_is_the_corpus_s() -> None:
    assert Languages(["fr", "de"]).detect("Wo ist das Finanzamt der Stadt Köln?")[0] == "de"
    assert Languages(["fr", "en"]).detect("Wo ist das Finanzamt der Stadt Köln?")[0] in ("fr", "en")
    with pytest.raises(InputError, match="xx"):
        Languages(["fr", "xx"])


@pytest.mark.parametrize(
    ("acronym", "text", "expansion"),
    [
        (
            "DGFiP",
            "La DGFiP, direction générale des Finances publiques, est ...",
            "direction générale des Finances publiques",
        ),
        ("SG", "Le SG est le Secrétariat général, qui coordonne.", "Secrétariat général"),
        ("TVA", "La taxe sur la valeur ajoutée (TVA) est un impôt.", "taxe sur la valeur ajoutée"),
        ("CET", "Le compte épargne-temps permet de garder des jours.", "compte épargne-temps"),
        ("LOLF", "Elle fixe le cadre du budget de l'État.", None),
        ("CNIL", "La CNIL est une autorité, créée en 1978.", None),
    ],
)
def test_acronyms_are_read_off_the_training_pairs(acronym: str, text: str, expansion: str | None) -> None:
    assert written_out(acronym, text) == expansion
    assert expansions([(f"que veut dire {acronym} ?", text)]) == ({acronym: expansion} if expansion else {})


def test_a_marian_model_translates_a_foreign_question_and_can_be_undone(spelling: Spelling, marian: Path) -> None:
    translator = Translator(str(marian))
    clean_up = CleanUp(Languages(["fr", "en"]), spelling, {}, translator)
    asked = "what is the role of the general secretary of the ministry"
    cleaned = clean_up.clean(asked)
    assert [step.kind for step in cleaned.steps][:2] == ["language", "translation"]
    assert cleaned.steps[1].after == translator.translate(asked) != asked
    off = clean_up.clean(asked, off=frozenset({"translation"}))
    assert off.searched == asked
    assert not off.steps[1].done
    assert [step.kind for step in clean_up.clean("le rôle du secrétariat général").steps] == ["language"]


def test_a_model_that_is_no_marian_is_refused(tiny_base: TinyBase, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bert model, expected a Marian"):
        Translator(str(tiny_base("bert", packaged=False)))
    with pytest.raises(InputError, match="cannot be loaded"):
        Translator(str(tmp_path / "none"))
