"""Tiny real checkpoints that the tests share."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch

from trainables.bases import figures
from trainables.config import TrialConfig
from trainables.model.stand_ins import make_encoder, make_stand_in

Architecture = Literal["xlm-roberta", "bert", "camembert", "deberta-v2"]
ARCHITECTURES: tuple[Architecture, ...] = ("xlm-roberta", "bert", "camembert", "deberta-v2")
# A known base of each architecture, whose figures are shrunk.
BASES = {
    "xlm-roberta": "intfloat/multilingual-e5-base",
    "bert": "intfloat/multilingual-e5-small",
    "camembert": "almanach/camembert-base",
    "deberta-v2": "almanach/camemberta-base",
}
FIGURES = {
    "xlm-roberta": figures.XLMR_BASE,
    "bert": figures.E5_SMALL,
    "camembert": figures.CAMEMBERT_BASE,
    "deberta-v2": figures.CAMEMBERTA_BASE,
}
TEXTS = (
    "Le SG est le Secrétariat général, qui coordonne les services du ministère.",
    "La DGFiP recouvre l'impôt et tient les comptes publics de l'État.",
    "Un marché public est un contrat conclu à titre onéreux par un acheteur public.",
    "La dotation globale de fonctionnement est versée par l'État aux communes.",
    "Le compte épargne-temps permet à l'agent de garder des jours de congé.",
    "France Connect permet de s'identifier auprès des services en ligne.",
    "Que signifie l'acronyme LOLF ?",
    "La loi organique relative aux lois de finances fixe le cadre du budget de l'État.",
)

TinyBase = Callable[..., Path]


def pytest_configure(config: pytest.Config) -> None:
    """What Ray finds: its workers as any other process, for Ray's niceness of 15 would have a search wait until the
    tests beside it end; and one token before the first Ray starts, for two that start at once on a new machine would
    each write one.
    """
    os.environ.update(RAY_worker_niceness="0")
    if not hasattr(config, "workerinput") and not (Path.home() / ".ray" / "auth_token").exists():
        command = [str(Path(sys.executable).parent / "ray"), "get-auth-token", "--generate"]
        subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests share the machine: one thread each."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> TinyBase:
    """`tiny_base(architecture, packaged=True, width=32, layers=2) -> Path`: a tiny checkpoint, made once a session.

    packaged: a sentence-transformers folder with the prompts and pooling of the family, else a plain encoder's folder.
    Do not write into it.
    """

    @functools.cache
    def make(architecture: Architecture, packaged: bool = True, width: int = 32, layers: int = 2) -> Path:
        folder = tmp_path_factory.mktemp(f"{architecture}-{'packaged' if packaged else 'plain'}")
        if packaged:
            return make_stand_in(TrialConfig(base=BASES[architecture]), TEXTS, folder, width=width, layers=layers)
        path = folder / f"tiny-{architecture}"
        make_encoder(FIGURES[architecture], TEXTS, path, width=width, layers=layers)
        return path

    return make
