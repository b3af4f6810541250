"""What is known of a base model without its weights."""
