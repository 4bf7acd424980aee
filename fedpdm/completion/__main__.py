"""``eval "$(python -m fedpdm.completion)"``: bash completes commands, options and run folders."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fedpdm.config.arguments import parser_of
from fedpdm.errors import run_command

DESCRIPTION = """\
Print what bash needs to complete fedpdm and python -m fedpdm: commands, options and their values,
sites, run folders. For every new shell, put this into ~/.bashrc:

  eval "$(python -m fedpdm.completion)"
"""

SCRIPT = r"""_fedpdm() {
    local line=${COMP_LINE:0:COMP_POINT} program=("${COMP_WORDS[0]}")
    if [[ ${COMP_WORDS[0]##*/} == python* ]]; then
        [[ $line == *" -m "* ]] || return 0
        program+=(-m fedpdm)
    fi
    local word=${line##*[[:space:]]}
    mapfile -t COMPREPLY < <("${program[@]}" completion --line "$line" 2> /dev/null)
    if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}")
    fi
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=./] ]]; then compopt -o nospace; fi
}
complete -o bashdefault -o default -F _fedpdm fedpdm python python3
"""
"""Where ``=`` separates words, bash replaces only what follows it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the script, or what may follow a line; return the exit code 0."""
    parser = parser_of("completion", DESCRIPTION)
    parser.add_argument("--line", metavar="TEXT", help="what is typed: print how it may go on")
    given = parser.parse_args(arguments)
    if given.line is None:
        print(SCRIPT, end="")
        return 0
    from fedpdm.completion.candidates import candidates

    for word in candidates(given.line):
        print(word)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
