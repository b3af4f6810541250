"""A trained adapter becomes a merged model, checked and saved."""
