"""Options arrive as they are declared, and what belongs to none is refused."""

import inspect
from importlib import import_module
from pkgutil import iter_modules

import pytest

from medcalib import cli
from medcalib.cli.options import call_with_options
from medcalib.errors import UserError

VERBS = [module.name for module in iter_modules(cli.__path__) if module.name.startswith("verb_")]


def command(debug: bool = False, name: str = "", number: int = 0, output_dir: str | None = None):
    """Do it.

    With care.

    Args:
        debug: in seconds,
            on few cases.
        name: letter by letter.
        number: as YAML has it.
        output_dir: folder.
    """
    return debug, name, number, output_dir


def overriding(seed: int | None = None, debug: bool = False, **overrides: object):
    """Do it.

    Args:
        seed: fixes it.
        debug: in seconds.
        **overrides: replaces a value, such as --a::b=1.
    """
    return seed, debug, overrides


def call(*words, main=command):
    return call_with_options(main, words, "do")


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["--debug=false", "--name=20240131", "--number=7"], (False, "20240131", 7, None)),
        (["--name", "true", "--number", "-3", "--debug"], (True, "true", -3, None)),
        (["--debug", "--name=a=b", "--output-dir=x-y"], (True, "a=b", 0, "x-y")),
        (["--debug", "False", "--name="], (False, "", 0, None)),
        (["--nodebug"], (False, "", 0, None)),
        (["--number=1", "--number=2"], (False, "", 2, None)),
        ([], (False, "", 0, None)),
    ],
)
def test_an_option_is_read_as_it_is_declared(words, values):
    assert call(*words) == values


def test_other_options_are_overrides():
    words = ["--seed=7", "--a::b=1e-3", "--amp", "--data-dir", "007", "--debug", "--normal=no"]
    assert call(*words, main=overriding) == (7, True, {"a::b": 1e-3, "amp": True, "data_dir": "007", "normal": "no"})


@pytest.mark.parametrize("main", [command, overriding])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "do: 'train' belongs to no option"),
        (["--seed=1", "train"], "do: 'train' belongs to no option"),
        (["--seed", "1", "train", "--debug"], "do: 'train' belongs to no option"),
        (["--", "--seed=1"], "do: '--' belongs to no option"),
        (["--debug=perhaps"], "--debug must be true or false, not 'perhaps'"),
        (["--debug=yes"], "--debug must be true or false, not 'yes'"),
    ],
)
def test_what_cannot_be_read_is_named(main, words, message):
    words = words if main is overriding else [word.replace("seed", "number") for word in words]
    with pytest.raises(UserError, match=f"^{message}"):
        call(*words, main=main)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nubmer=x"], r"do has no option --nubmer; did you mean number or name\?"),
        (["--results_dir=x"], r"do has no option --results_dir; did you mean output_dir\?"),
        (["--xyz"], "do has no option --xyz; there is debug, name, number, output_dir."),
        (["--name"], "--name is missing its value"),
        (["--number", "--debug"], "--number is missing its value"),
    ],
)
def test_an_option_that_is_not_there_or_has_no_value(words, message):
    with pytest.raises(UserError, match=f"^{message}"):
        call(*words)


def test_an_option_without_default_must_be_given():
    def main(kind: str, number: int = 0):
        return kind

    assert call("--kind=x", main=main) == "x"
    with pytest.raises(UserError, match="^--kind is missing; do --help says what it is"):
        call("--number=1", main=main)


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_explains_every_option_by_itself(word, capsys):
    assert call("--debug", word) is None
    assert capsys.readouterr().out == (
        "do: Do it.\n\nWith care.\n\nOptions:\n"
        "  --debug\n      in seconds, on few cases.\n"
        "  --name=NAME\n      letter by letter.\n"
        "  --number=NUMBER\n      as YAML has it. (default: 0)\n"
        "  --output_dir=OUTPUT_DIR\n      folder.\n"
    )
    call(word, main=overriding)
    told = capsys.readouterr().out.splitlines()
    assert told[-4:] == [
        "  --debug",
        "      in seconds.",
        "  --ID=VALUE",
        "      replaces a value, such as --a::b=1.",
    ]


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_every_verb_is_declared_and_explained(verb, capsys):
    """A folder or name is a text whatever it looks like, a switch is true or false."""
    main = import_module(f"medcalib.cli.{verb}").main
    call_with_options(main, ["--help"], verb)
    lines = capsys.readouterr().out.splitlines()
    for parameter in inspect.signature(main, eval_str=True).parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            assert (parameter.annotation is bool) == isinstance(parameter.default, bool), parameter
            assert not parameter.name.endswith(("dir", "bundle")) or parameter.annotation in (str, str | None), (
                parameter
            )
            alone = parameter.kind is parameter.POSITIONAL_ONLY
            label = f"  {parameter.name.upper()}" if alone else f"  --{parameter.name}"
            (line,) = (at for at, text in enumerate(lines) if text.partition("=")[0] == label)
            assert lines[line + 1].strip()


class TestWordsOfTheirOwn:
    def main(self):
        def main(file: str, /, plan: bool = False, engine: str = ""):
            """Do it.

            Args:
                file: what to do.
                plan: only say.
                engine: how.
            """
            return file, plan, engine

        return main

    @pytest.mark.parametrize(
        ("words", "values"),
        [
            (["a.yaml"], ("a.yaml", False, "")),
            (["a.yaml", "--plan", "--engine", "ray"], ("a.yaml", True, "ray")),
            (["--plan", "a.yaml"], ("a.yaml", True, "")),
            (["--plan", "false", "a.yaml"], ("a.yaml", False, "")),
            (["--engine", "ray", "007"], ("007", False, "ray")),
        ],
    )
    def test_they_stand_anywhere(self, words, values):
        assert call(*words, main=self.main()) == values

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ([], "FILE is missing"),
            (["--plan"], "FILE is missing"),
            (["a", "b"], "'b' belongs to no option"),
            (["--file=a"], "FILE is missing|has no option --file"),
        ],
    )
    def test_one_too_few_or_too_many(self, words, message):
        with pytest.raises(UserError, match=message):
            call(*words, main=self.main())

    def test_the_help_names_them_without_dashes(self, capsys):
        call("--help", main=self.main())
        assert "\n  FILE\n      what to do.\n" in capsys.readouterr().out
