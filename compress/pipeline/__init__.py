"""Pipelines: recipes of several stages, run, recorded, resumed and measured."""
