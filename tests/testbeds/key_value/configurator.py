"""Poor man's configurator: override globals of train.py by --name=value."""

from ast import literal_eval
import sys


for argument in sys.argv[1:]:
    name, _, text = argument.removeprefix("--").partition("=")
    if name not in globals():
        raise ValueError(f"Unknown config key: {name}")
    try:
        value = literal_eval(text)
    except (SyntaxError, ValueError):
        value = text
    print(f"Overriding: {name} = {value}")
    globals()[name] = value
