"""What a search prints."""
