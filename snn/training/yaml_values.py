"""YAML as people write it: 1e-3 is a number."""

import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """PyYAML follows YAML 1.1, where a number with an exponent needs a dot and a sign (1.0e-3); YAML 1.2 does not."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(text: str) -> Any:
    """Return the value of a YAML text; raise yaml.YAMLError if it is none.

    >>> read_yaml("{lr: 1e-3, name: digits, hidden: [1, 2]}")
    {'lr': 0.001, 'name': 'digits', 'hidden': [1, 2]}
    """
    return yaml.load(text, Loader=_Loader)
