"""The registry, on small distributions that are written to disk and found as any installed one is."""

import sys
from pathlib import Path

import pytest

from bakeoff import catalogue, registry
from bakeoff.contracts import Algorithm
from bakeoff.errors import PluginError

PLUGIN = '''
from bakeoff.contracts import Algorithm, PluginSettings

class Foo(Algorithm):
    title = "{title}"
    paper = "arXiv:0000.00000"

    class Settings(PluginSettings):
        beta: float = 0.1
        """Pull to the reference."""
        rows: int

    def train(self, context):
        pass
'''


class Site:
    """A folder on ``sys.path`` for each distribution that a test installs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch

    def install(
        self, name: str, points: dict[str, str], modules: dict[str, str], version: str = "1.0", kind: str = "algorithm"
    ) -> Path:
        root = self.folder / f"{name}-{version}"
        info = root / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [f"{point} = {value}" for point, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[bakeoff.{kind}s]", *lines, ""]))
        for path, text in modules.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        self.monkeypatch.syspath_prepend(root)
        return root


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Installs small distributions, and forgets their modules afterwards."""
    before = set(sys.modules)
    yield Site(tmp_path, monkeypatch)
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_listing_imports_nothing(site):
    """A plugin whose module raises is listed all the same, since a list reads metadata only."""
    site.install("foo", {"foo": "foo_plugin:Foo"}, {"foo_plugin.py": "raise RuntimeError('imported')"})
    assert "foo" in registry.names("algorithm")
    assert "foo_plugin" not in sys.modules


def test_built_ins_come_through_the_same_door():
    """The names of pyproject.toml are there, each kind in its own group."""
    assert {"base", "sft", "dpo", "ppo", "grpo"} <= set(registry.names("algorithm"))
    assert "gold" in registry.names("judge")
    assert "gold" not in registry.names("evaluator")


def test_load_gives_the_class(site):
    """The class that the entry point names, ready to be made."""
    site.install("foo", {"foo": "foo_plugin:Foo"}, {"foo_plugin.py": PLUGIN.format(title="Foo Optimization")})
    plugin = registry.load("algorithm", "foo")
    assert issubclass(plugin, Algorithm)
    assert plugin.title == "Foo Optimization"


def test_unknown_name_lists_what_is_installed(site):
    """One name that is spelled alike is offered with its full title, and the installed ones are listed."""
    site.install("foo", {"foopo": "foo_plugin:Foo"}, {"foo_plugin.py": PLUGIN.format(title="Foo Optimization")})
    with pytest.raises(PluginError) as caught:
        registry.load("algorithm", "foopp")
    assert "Did you mean 'foopo' (Foo Optimization)?" in str(caught.value)
    assert "Installed: " in caught.value.fix
    assert "foopo" in caught.value.fix


def test_two_like_names_are_both_told(site):
    """Names one slip apart are never chosen between: both are told, each by its title."""
    site.install("one", {"zrpo": "one_plugin:Foo"}, {"one_plugin.py": PLUGIN.format(title="Group Relative")})
    site.install("two", {"zpro": "two_plugin:Foo"}, {"two_plugin.py": PLUGIN.format(title="Generalized Preference")})
    with pytest.raises(PluginError) as caught:
        registry.load("algorithm", "zppo")
    assert "Did you mean" not in str(caught.value)
    assert "'zrpo' (Group Relative)" in str(caught.value)
    assert "'zpro' (Generalized Preference)" in str(caught.value)


def test_collision_names_both_distributions(site):
    """A name that two distributions claim is an error that names both, and harms no other name."""
    good = PLUGIN.format(title="Foo")
    site.install("one", {"foo": "one_plugin:Foo", "bar": "one_plugin:Foo"}, {"one_plugin.py": good})
    site.install("two", {"foo": "two_plugin:Foo"}, {"two_plugin.py": good})
    with pytest.raises(PluginError, match=r"claimed by 2 distributions: (one .* and two|two .* and one)"):
        registry.load("algorithm", "foo")
    info = catalogue.describe("algorithm", "foo")
    assert "claimed by 2" in (info.error or "")
    assert sorted(info.distribution.split(" and ")) == ["one 1.0", "two 1.0"]
    assert sorted(info.value.split(" and ")) == ["one_plugin:Foo", "two_plugin:Foo"]
    assert registry.load("algorithm", "bar").title == "Foo"


def test_broken_plugin_harms_no_other(site):
    """A plugin that raises on import names its distribution; its neighbour still loads."""
    site.install("bad", {"bad": "bad_plugin:Bad"}, {"bad_plugin.py": "raise SystemExit('no licence')"})
    site.install("foo", {"foo": "foo_plugin:Foo"}, {"foo_plugin.py": PLUGIN.format(title="Foo")})
    with pytest.raises(
        PluginError, match=r"'bad' of bad \(bad_plugin:Bad\) cannot be imported: SystemExit: no licence"
    ):
        registry.load("algorithm", "bad")
    assert registry.load("algorithm", "foo").title == "Foo"
    assert catalogue.describe("algorithm", "bad").distribution == "bad"


def test_missing_dependency_is_told(site):
    """When a plugin's import needs a package that is not there, the mending is to install that package."""
    site.install("foo", {"foo": "foo_plugin:Foo"}, {"foo_plugin.py": "import unheard_of.part"})
    with pytest.raises(PluginError) as caught:
        registry.load("algorithm", "foo")
    assert caught.value.fix == "Install 'unheard_of', which the plugin needs."


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("class Foo: pass", "is not a subclass of bakeoff.contracts.Algorithm"),
        ("Foo = 3", "is not a subclass"),
        (PLUGIN.format(title="Foo").replace("def train", "def trian"), r"does not define train\(\)"),
        (PLUGIN.format(title="Foo").replace("title =", "name ="), "has no `title`"),
        (PLUGIN.format(title="Foo").replace("beta:", "label:"), "has a setting called 'label'"),
        (
            PLUGIN.format(title="Foo").replace("Settings(PluginSettings)", "Settings"),
            "not a subclass of .*PluginSettings",
        ),
    ],
)
def test_contract_is_checked(site, source, told):
    """What an entry point names must keep the contract of its kind, or the message says where it does not."""
    site.install("foo", {"foo": "foo_plugin:Foo"}, {"foo_plugin.py": source})
    with pytest.raises(PluginError, match=told):
        registry.load("algorithm", "foo")


@pytest.mark.parametrize(
    ("attribute", "told"),
    [
        ("consumes = ['demonstrations']", r"has `consumes = \['demonstrations'\]`, which has to be a set of sources"),
        ("consumes = 'demonstrations'", "has `consumes = 'demonstrations'`, which has to be a set"),
        ("consumes = frozenset({1})", r"such as frozenset\(\{\"demonstrations\"\}\)"),
        ("presets = {'a': {'lr': 1}}", "which has to be a mapping from names to presets"),
        ("presets = {'a': Preset('A', '', ['lr'])}", "which has to be a mapping from names to presets"),
        ("presets = {1: Preset('A', '', {})}", "which has to be a mapping from names to presets"),
        ("presets = ['a']", "which has to be a mapping from names to presets"),
    ],
)
def test_a_misshapen_attribute_breaks_its_plugin_alone(site, attribute, told):
    """What every plan reads of every class is told in full, and names near it are still found."""
    source = PLUGIN.replace("import Algorithm", "import Algorithm, Preset").format(title="Foo") + f"\n    {attribute}\n"
    site.install("foo", {"foo": "foo_plugin:Foo"}, {"foo_plugin.py": source})
    with pytest.raises(PluginError, match=f"'foo' of foo .*{told}") as caught:
        registry.load("algorithm", "foo")
    assert caught.value.fix.startswith("Mend the plugin")
    with pytest.raises(PluginError, match="write 'dpo:ipo'"):
        registry.load("algorithm", "ipo")


@pytest.mark.parametrize(
    ("attribute", "told"),
    [
        ("pass", r"has no `metrics`, which has to be a tuple of bakeoff\.contracts\.Metric"),
        ("metrics = ('a',)", r"has `metrics = \('a',\)`, which has to be a tuple"),
        ("metrics = Metric('a', '', 'higher', '')", "which has to be a tuple"),
        ("metrics = (); needs = 'samples'", "has `needs = 'samples'`, which has to be a set"),
        ("metrics = (); needs = ['samples']", "which has to be a set of what it reads"),
    ],
)
def test_a_misshapen_evaluator_is_told(site, attribute, told):
    """Of an evaluator it is what it measures and what it needs for it."""
    source = (
        "from bakeoff.contracts import Evaluator, Metric\n\nclass Foo(Evaluator):\n    title = 'Foo'\n"
        f"    def score(self, context): ...\n    {attribute}\n"
    )
    site.install("foo", {"foo": "foo_plugin:Foo"}, {"foo_plugin.py": source}, kind="evaluator")
    with pytest.raises(PluginError, match=f"'foo' of foo .*{told}"):
        registry.load("evaluator", "foo")


def test_an_entry_point_that_names_no_class_is_told(site):
    """A value that is not of the form module:Class, which importlib.metadata itself stumbles over."""
    site.install("foo", {"foo": "not a module"}, {})
    with pytest.raises(PluginError, match=r"'foo' of foo .*'not a module' is not of the form module:Class") as caught:
        registry.load("algorithm", "foo")
    assert 'Write it as foo = "package.module:Class"' in caught.value.fix


def test_a_presets_own_name_is_told_as_a_preset(site):
    """Who asks for ``calm`` is told to write ``foo:calm``."""
    body = PLUGIN.replace("import Algorithm", "import Algorithm, Preset") + (
        '\n    presets = {{"calm": Preset("Calm", "Nobody 2026", {{"rows": 1}})}}\n'
    )
    site.install("foo", {"foo": "foo_plugin:Foo"}, {"foo_plugin.py": body.format(title="Foo")})
    with pytest.raises(PluginError, match="write 'foo:calm'"):
        registry.load("algorithm", "calm")
    assert registry.variant("foo", "calm").title == "Calm"
    assert registry.variant("foo").title == "Foo"


def test_describe_tells_settings(site):
    """Title, paper, distribution and each setting with its type, default and documentation."""
    site.install("foo", {"foo": "foo_plugin:Foo"}, {"foo_plugin.py": PLUGIN.format(title="Foo")}, version="2.5")
    info = catalogue.describe("algorithm", "foo")
    assert (info.distribution, info.version, info.value) == ("foo", "2.5", "foo_plugin:Foo")
    assert (info.title, info.paper, info.error) == ("Foo", "arXiv:0000.00000", None)
    assert info.settings == (
        catalogue.Setting("beta", "float", 0.1, False, "Pull to the reference."),
        catalogue.Setting("rows", "int", None, True, ""),
    )


def package(plugin: str = "", shared: str = "", part: str = "", other: str = "") -> dict[str, str]:
    """The modules of a plugin that imports a sibling, which imports a part; a module that nobody imports."""
    return {
        "foo_pack/__init__.py": "",
        "foo_pack/foo.py": "from .shared import scale\n" + PLUGIN.format(title="Foo") + plugin,
        "foo_pack/shared.py": "from .parts import part\ndef scale(): return 1\n" + shared,
        "foo_pack/parts/__init__.py": "",
        "foo_pack/parts/part.py": part,
        "foo_pack/other.py": "x = 1\n" + other,
    }


def hash_of(site: Site, modules: dict[str, str], version: str = "1.0") -> str:
    root = site.install("foo", {"foo": "foo_pack.foo:Foo"}, modules, version)
    try:
        return registry.source_hash(registry.load("algorithm", "foo"))
    finally:
        site.monkeypatch.undo()
        for name in ("foo_pack", "foo_pack.foo", "foo_pack.shared", "foo_pack.parts", "foo_pack.parts.part"):
            sys.modules.pop(name, None)
        root.rename(root.with_name(f"{root.name}-{len(list(site.folder.iterdir()))}"))


def test_source_hash_follows_what_the_plugin_runs(site):
    """The plugin's file, what it imports of its package and the version count; other modules do not."""
    base = hash_of(site, package())
    assert hash_of(site, package()) == base
    assert hash_of(site, package(other="y = 2\n")) == base
    assert hash_of(site, package(plugin="# edited\n")) != base
    assert hash_of(site, package(shared="# edited\n")) != base
    assert hash_of(site, package(part="# edited\n")) != base
    assert hash_of(site, package(), version="1.1") != base


def test_source_hash_imports_nothing(site):
    """A sibling that is imported late, perhaps a heavy one, is read and not run."""
    modules = package(plugin="\ndef late():\n    from .other import x\n    return x\n", other="raise RuntimeError\n")
    hashed = hash_of(site, modules)
    assert hashed != hash_of(site, {**modules, "foo_pack/other.py": "raise ValueError\n"})


def test_source_hash_needs_a_file():
    """A class without a source file cannot be tied to its results, and is refused."""
    prompt = type("Prompt", (Algorithm,), {"__module__": "__main__", "title": "", "train": lambda self, context: None})
    with pytest.raises(PluginError, match="no source file"):
        registry.source_hash(prompt)


def test_grpo_and_gpro_are_told_apart():
    """Names one slip apart are both told in full, whichever was meant."""
    for typo in ("gpor", "grop", "grpro", "grp", "gpr"):
        with pytest.raises(PluginError) as caught:
            registry.load("algorithm", typo)
        for name in ("grpo", "gpro"):
            assert f"{name!r} ({registry.load('algorithm', name).title})" in str(caught.value)
        assert "Did you mean" not in str(caught.value)


def test_broken_settings_harm_no_listing(site):
    """A class whose default cannot be made is described with its error, and does not take the list down."""
    source = PLUGIN.format(title="Foo") + "    Settings.model_fields['beta'].default_factory = lambda: 1 / 0\n"
    site.install("foo", {"foo": "foo_plugin:Foo"}, {"foo_plugin.py": source})
    assert "cannot be described: ZeroDivisionError" in (catalogue.describe("algorithm", "foo").error or "")


def test_remains_of_an_installation_harm_no_other(site):
    """A dist-info folder without its METADATA, as a broken uninstall leaves it, hides no plugin and is told."""
    root = site.install("foo", {"foo": "foo_plugin:Foo"}, {"foo_plugin.py": PLUGIN.format(title="Foo")})
    (root / "foo-1.0.dist-info" / "METADATA").unlink()
    assert "foo" in registry.names("algorithm")
    assert registry.load("algorithm", "dpo").title
    assert catalogue.describe("algorithm", "foo").title == "Foo"


def test_describe_tells_what_it_takes_and_its_presets(site):
    """What it trains on, the bounds of its settings, and each preset as plain data."""
    source = (
        PLUGIN.format(title="Foo")
        .replace(
            "    class Settings",
            "    consumes = frozenset({'prompts', 'reward'})\n"
            "    presets = {'bar': Preset('Bar', 'arXiv:1', {'beta': 0.5}, 'No KL.')}\n\n    class Settings",
        )
        .replace(
            "import Algorithm, PluginSettings", "import Algorithm, PluginSettings, Preset\nfrom pydantic import Field"
        )
    )
    source = source.replace("beta: float = 0.1", "beta: float = Field(default=0.1, gt=0, le=1)")
    site.install("foo", {"foo": "foo_plugin:Foo"}, {"foo_plugin.py": source})
    info = catalogue.describe("algorithm", "foo")
    assert info.error is None
    assert info.facts == {"trains on": "prompts, reward"}
    assert info.settings[0].bounds == "> 0, <= 1"
    assert info.presets == (catalogue.PresetInfo("bar", "Bar", "arXiv:1", {"beta": 0.5}, "No KL."),)


def test_a_changed_default_keeps_its_explanation(site):
    """A setting that only changes an inherited default is explained where it was declared."""
    source = PLUGIN.format(title="Foo") + "    class Settings(Settings):\n        beta: float = 0.9\n"
    site.install("foo", {"foo": "foo_plugin:Foo"}, {"foo_plugin.py": source})
    beta = next(each for each in catalogue.describe("algorithm", "foo").settings if each.name == "beta")
    assert (beta.default, beta.description) == (0.9, "Pull to the reference.")


def test_a_lent_plugin_is_there_for_a_while(site):
    """By its name, before an installed one of that name, and only within the block."""
    site.install("foo", {"foo": "foo_plugin:Foo"}, {"foo_plugin.py": PLUGIN.format(title="Foo")})
    lent = type("Lent", (Algorithm,), {"title": "Lent", "train": lambda self, context: None})
    with registry.lend("algorithm", "foo", lent), registry.lend("algorithm", "elsewhere", lent):
        assert registry.load("algorithm", "foo") is lent
        assert "elsewhere" in registry.names("algorithm")
        assert registry.origin("algorithm", "foo").distribution == "not installed"
    assert registry.load("algorithm", "foo").title == "Foo"
    assert "elsewhere" not in registry.names("algorithm")
    with pytest.raises(PluginError, match="not a subclass"), registry.lend("algorithm", "foo", int):
        pass
