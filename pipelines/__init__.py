"""Pipelines: how the components are composed."""
