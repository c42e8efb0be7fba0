"""Completion for bash, made from the parser itself: what `--help` knows is completed, and nothing else.

`outpost completion bash` prints it. The host's copy is roles/inference/files/outpost-completion.bash, which knows the
wrapper's own options as well: `python -m outpost.completion > roles/inference/files/outpost-completion.bash`; a test
holds it to the parser.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from outpost.options import Exit, examples

_HEAD = """\
# Completion for `outpost`, made by `outpost completion bash`. For one shell: source <(outpost completion bash)
_outpost() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} verb="" at
    COMPREPLY=()
    for ((at = 1; at < COMP_CWORD; at++)); do
        case ${COMP_WORDS[at]} in
            -s | --system) ((at++)) ;;
            -*) ;;
            *) case "$verb ${COMP_WORDS[at]}" in
"""
_MIDDLE = """\
                esac ;;
        esac
    done
    local words="" files="" paths=""
    case $before in
        -s | --system)
            words=$(cd /etc/outpost 2>/dev/null && ls -- *.env 2>/dev/null)
            COMPREPLY=($(compgen -W "${words//.env/}" -- "$word"))
            return ;;
    esac
    case "$verb $before" in
"""
_TAIL = """\
    esac
    if [[ $files || ( $paths && $word != -* ) ]]; then
        COMPREPLY=($(compgen -f -- "$word"))
    fi
    [[ $files ]] || COMPREPLY+=($(compgen -W "$words" -- "$word"))
}
complete -o filenames -F _outpost outpost
"""


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `completion`."""
    parser = commands.add_parser(
        "completion",
        help="print the completion of a shell",
        **examples("source <(outpost completion bash)", "outpost completion bash > ~/.bash_completion"),
    )
    parser.add_argument("shell", choices=("bash",))
    parser.set_defaults(run=_print)


def _print(_: argparse.Namespace) -> int:
    from outpost.cli import _parser

    sys.stdout.write(bash(_parser()))
    return Exit.OK


def bash(parser: argparse.ArgumentParser) -> str:
    """The script for bash."""
    verbs = dict(_verbs(parser, ""))
    known = "".join(
        f'                    "{before} {name}") verb="{verb}" ;;\n' for before, name, verb in _steps(verbs)
    )
    values, words = [], []
    for verb, one in verbs.items():
        for action in _visible(one):
            if not action.option_strings or action.nargs == 0:
                continue
            spelled = " | ".join(f'"{verb} {option}"' for option in action.option_strings)
            choices = list(action.choices) if action.choices is not None else []
            if choices and len(choices) <= 20:
                values.append(
                    f'        {spelled}) COMPREPLY=($(compgen -W "{_joined(choices)}" -- "$word")); return ;;\n'
                )
            elif _is_path(action):
                values.append(f"        {spelled}) files=1 ;;\n")
        named = "; paths=1" if any(_is_path(a) and not a.option_strings for a in _visible(one)) else ""
        words.append(f'        "{verb}") words="{_joined(_offered(one, verb))}"{named} ;;\n')
    return f"{_HEAD}{known}{_MIDDLE}{''.join(values)}    esac\n    case $verb in\n{''.join(words)}{_TAIL}"


def _verbs(parser: argparse.ArgumentParser, verb: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield verb, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from _verbs(sub, f"{verb} {name}".strip())


def _steps(verbs: dict[str, argparse.ArgumentParser]) -> Iterator[tuple[str, str, str]]:
    for verb in verbs:
        if verb:
            before, _, name = verb.rpartition(" ")
            yield before, name, verb


def _visible(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.help != argparse.SUPPRESS]


def _is_path(action: argparse.Action) -> bool:
    return action.type is Path


def _offered(parser: argparse.ArgumentParser, verb: str) -> list[str]:
    found: list[str] = []
    for action in _visible(parser):
        if action.option_strings:
            found += [option for option in action.option_strings if option.startswith("--")]
        elif action.choices is not None and len(list(action.choices)) <= 50:
            found += [str(choice) for choice in action.choices]
    if not verb:
        found.append("--system")  # of the host's wrapper
    return found


def _joined(words: object) -> str:
    assert isinstance(words, list)
    return " ".join(map(str, words))


if __name__ == "__main__":
    from outpost.cli import _parser as _of_main

    sys.stdout.write(bash(_of_main()))
