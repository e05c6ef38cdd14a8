"""Side effects: registries, stores, Kubeflow."""
