"""Models side by side on any tasks, in one table."""
