"""A web page that asks the base and the tuned model the same question, for people who have to be convinced."""
