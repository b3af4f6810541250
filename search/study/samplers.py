"""Samplers by name: who proposes the next configuration."""

from __future__ import annotations

import optuna

from search.spec.sections import SamplerSpec


def make_sampler(spec: SamplerSpec, seed: int, concurrent: int) -> optuna.samplers.BaseSampler:
    """A fresh sampler for one proposal.

    TPE is multivariate and groups parameters that occur together, so that a conditional space is modelled within its
    conditions (Falkner et al. 2018, arXiv 1807.01774); with parallel trials a running one counts as a bad one
    (constant liar), which keeps neighbours from being proposed at the same time. The Gaussian process is Optuna's, with
    log expected improvement. CMA-ES is not offered: Optuna's keeps its state in the study as a pickle, and reading a
    run's folder must not be able to run code.
    """
    match spec.name:
        case "random" | "grid":  # the points of a grid wait in the study already
            return optuna.samplers.RandomSampler(seed=seed)
        case "tpe":
            return optuna.samplers.TPESampler(
                n_startup_trials=spec.startup, multivariate=True, group=True, constant_liar=concurrent > 1, seed=seed
            )
        case "gp":
            return optuna.samplers.GPSampler(n_startup_trials=spec.startup, seed=seed)
