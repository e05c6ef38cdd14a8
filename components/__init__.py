"""Kubeflow Pipelines components, one folder each; the work is done by the library."""
