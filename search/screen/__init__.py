"""What a search prints: its console, the live table of trials and the closing summary."""
