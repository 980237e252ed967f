"""A model folder and a prefix -> text."""
