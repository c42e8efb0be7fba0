"""`outpost filter explain|check`: why studies are left out, and whether a rule file is right."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `filter` to the main command. The parsed namespace's `run` takes it and returns the exit code."""
    parser = commands.add_parser("filter", help="why a study is left out, and whether a rule file is right")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    explain = verbs.add_parser(
        "explain", help="show what each rule says of a file or folder; exit 1 when a study is rejected"
    )
    explain.add_argument("path", type=Path, metavar="PATH", help="a DICOM file, or a folder to search")
    source = explain.add_mutually_exclusive_group()
    source.add_argument("--rules", type=Path, metavar="FILE", help="rule file to judge by")
    source.add_argument("--bundle", type=Path, metavar="PATH", help="judge by the rules this bundle ships")
    source.add_argument("--config", type=Path, metavar="FILE", help="judge by the rules of this system")
    explain.add_argument("--json", action="store_true", help="print everything as JSON, a list of studies")
    explain.set_defaults(run=_explain)

    check = verbs.add_parser("check", help="validate a rule file: line, key, reason and remedy of each fault")
    check.add_argument("path", type=Path, metavar="FILE")
    check.add_argument("--json", action="store_true", help="print the faults as JSON")
    check.set_defaults(run=_check)


def _explain(options: argparse.Namespace) -> int:
    from outpost.filter.explain import explain, text
    from outpost.filter.rulefile import RulesInvalid, rules_of

    if not options.path.exists():
        sys.stderr.write(f"{options.path} does not exist: name a DICOM file or a folder\n")
        return 2
    try:
        rules = rules_of(_source(options))
    except RulesInvalid as invalid:
        sys.stderr.write(f"{invalid}\n")
        return 2
    studies = explain(options.path, rules)
    if options.json:
        print(json.dumps([study.as_json() for study in studies]))
    else:
        print("\n\n".join(text(number, study) for number, study in enumerate(studies, 1)))
    rejected = not studies or any(study.as_json()["decision"] == "reject" for study in studies)
    return int(rejected)


def _source(options: argparse.Namespace) -> Path | None:
    from outpost.config import Config, load
    from outpost.filter.rulefile import source_of

    if options.config is not None:
        config = load(options.config, Config)
        return source_of(config.inference.bundle, config.filter.rules)
    if options.bundle is not None:
        return source_of(options.bundle, None)
    rules: Path | None = options.rules
    return rules


def _check(options: argparse.Namespace) -> int:
    from outpost.filter.rulefile import RulesInvalid, load_rules

    try:
        file = load_rules(options.path)
    except RulesInvalid as invalid:
        if options.json:
            print(json.dumps({"ok": False, "faults": list(invalid.faults)}))
        else:
            sys.stderr.write(f"{invalid}\n")
        return 2
    if options.json:
        print(json.dumps({"ok": True, "faults": [], "digest": file.digest, "rules": len(file.rules.rules)}))
    else:
        print(f"{options.path}: ok, {len(file.rules.rules)} rules, sha256 {file.digest}")
    return 0
