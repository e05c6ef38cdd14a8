"""`trimgate schema`."""

import argparse
import json

from trimgate.config import json_schema


def run(arguments: argparse.Namespace) -> int:
    """Prints the JSON Schema of the config file, for editors, or of `card.json`, for machines."""
    print(json_schema() if arguments.of == "config" else _card(), end="")
    return 0


def _card() -> str:
    from trimgate.report import CardInput

    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **CardInput.model_json_schema(mode="serialization"),
        "title": "card.json",
    }
    return json.dumps(schema, indent=2) + "\n"
