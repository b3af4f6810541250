"""The search around the trial: specification, space, Optuna study, Ray Tune, leaderboard, promotion, command line."""

__version__ = "0.1.0"
