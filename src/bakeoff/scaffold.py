"""Write a new plugin: a package that installs and passes the conformance kit before the first edit."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import keyword
import os
import re
import unicodedata
from pathlib import Path

import bakeoff
from bakeoff import registry
from bakeoff.errors import PluginError
from bakeoff.registry import Kind

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST = 40
FLAVOURS = {
    "on-policy": "override advantages() and policy_loss() of the engine that ppo and grpo stand on",
    "trainer": "a loss of your own, or a trainer of TRL's, under transformers' Trainer",
    "loop": "a training loop of your own",
}
"""Ways to begin an algorithm, the first unless said."""
CHANGE: dict[str, str] = {
    "on-policy": "`advantages()` and, if you like, `policy_loss()`.",
    "trainer": "`loss()`, or the trainer itself.",
    "loop": "`losses()`, or the whole loop.",
    "task": "`load()`, `reward()` and `gold()`.",
    "evaluator": "`metrics` and `score()`.",
    "judge": "`verdict()`, or `compare()` where all are asked at once.",
    "report": "`render()`.",
}
"""What a reader of the package is told to change, by flavour or kind."""


def write(kind: Kind, name: str, *, flavour: str = "", to: Path | None = None) -> list[Path]:
    """Write the package ``bakeoff-<name>`` below ``to`` (the current folder) and return its files.

    Raises ``PluginError``, before anything is written, for a name that cannot be used or is taken, for an unknown
    flavour, and where a file is there already: nothing is ever overwritten.
    """
    flavour = _checked_flavour(kind, flavour)
    words = _checked_name(kind, name)
    folder = (to or Path()) / f"bakeoff-{name}"
    rendered = _render(kind, name, words, flavour)
    _check_class(name, _class_name(words), rendered[f"src/bakeoff_{'_'.join(words)}.py"])
    files = {folder / path: text for path, text in rendered.items()}
    # A link that leads nowhere is there, too, and so is a file where a folder has to be.
    folders = {parent for path in files for parent in path.parents if not parent.is_dir()}
    if there := [path for path in (*sorted(folders), *files) if os.path.lexists(path)]:
        raise PluginError(
            f"{there[0]} is there already; nothing was written.", fix="Choose another name or --to FOLDER."
        )
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    return list(files)


def _render(kind: Kind, name: str, words: list[str], flavour: str) -> dict[str, str]:
    """The package's files, by their path in it."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bakeoff"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    module = f"bakeoff_{'_'.join(words)}"
    variables = {
        "kind": kind,
        "name": name,
        "article": "an" if kind[0] in "aeiou" else "a",
        "distribution": f"bakeoff-{name}",
        "module": module,
        "class_name": _class_name(words),
        "title": " ".join(word.capitalize() for word in words),
        "metric": "_".join(words),
        "change": CHANGE[flavour or kind],
        "bakeoff": bakeoff.__version__,
    }
    templates = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        ".gitignore": "gitignore",
        ".github/workflows/check.yml": "check.yml",
        f"src/{module}.py": f"{kind}-{flavour}.py" if flavour else f"{kind}.py",
        f"tests/test_{'_'.join(words)}.py": "test.py",
    }
    return {path: environment.get_template(f"{template}.j2").render(variables) for path, template in templates.items()}


def _checked_flavour(kind: Kind, flavour: str) -> str:
    if kind != "algorithm":
        if flavour:
            raise PluginError(f"a {kind} has no flavours.", fix="Leave out --flavour.")
        return ""
    if flavour and flavour not in FLAVOURS:
        told = "; ".join(f"{each}: {what}" for each, what in FLAVOURS.items())
        raise PluginError(f"{flavour!r} is no flavour of an algorithm.", fix=f"Flavours: {told}.")
    return flavour or next(iter(FLAVOURS))


def _checked_name(kind: Kind, name: str) -> list[str]:
    """The name's words. Raises ``PluginError`` where it is no name, or somebody's."""
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        ascii_only = unicodedata.normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()
        plain = re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")[:LONGEST].rstrip("-")
        better = f"Write it {plain!r}." if NAME.fullmatch(plain) else "For example: my-method."
        raise PluginError(
            f"{name!r} cannot be a plugin's name, which names a distribution and a Python module, too.",
            fix=f"Use small letters, digits and hyphens, a letter first, at most {LONGEST} characters. {better}",
        )
    words = name.split("-")
    if name in registry.names(kind):
        origin = registry.origin(kind, name)
        raise PluginError(
            f"{kind} {name!r} is installed already: {origin.value} of "
            f"{f'{origin.distribution} {origin.version}'.rstrip()}.",
            fix="Choose another name: two plugins of one name are an error for everyone who installs both.",
        )
    distribution, module = f"bakeoff-{name}", f"bakeoff_{'_'.join(words)}"
    if _is_installed(distribution) or importlib.util.find_spec(module) is not None:
        raise PluginError(
            f"a package {distribution!r} is installed already.",
            fix=f"Add a class and an entry point under bakeoff.{kind}s to that package, or choose another name.",
        )
    return words


def _check_class(name: str, class_name: str, module: str) -> None:
    """Raises ``PluginError`` where the class, or that of its settings, would hide what the module imports."""
    taken = {class_name} if keyword.iskeyword(class_name) else set()
    if not taken:
        imports = (node for node in ast.walk(ast.parse(module)) if isinstance(node, ast.ImportFrom))
        taken = {alias.name for node in imports for alias in node.names} & {class_name, f"{class_name}Settings"}
    if taken:
        raise PluginError(
            f"{name!r} would make a class called {taken.pop()!r}, which Python or bakeoff has already.",
            fix="Choose a name that says what is new about it.",
        )


def _class_name(words: list[str]) -> str:
    return "".join(word.capitalize() for word in words)


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
