"""How others see a search: its name on the dashboard, its progress, its metrics and its loggers."""
