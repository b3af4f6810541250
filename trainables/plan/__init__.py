"""What a configuration trains and needs, before anything is trained."""
