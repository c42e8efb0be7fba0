"""`outpost filter explain|pixels|check`: why studies are left out, and whether a rule file is right."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from outpost.codes.answers import complain, faults
from outpost.codes.spoken import spoken
from outpost.options import Exit, add_json, add_language, examples


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `filter` to the main command. The parsed namespace's `run` takes it and returns the exit code."""
    parser = commands.add_parser(
        "filter",
        help="why a study is left out, and whether a rule file is right",
        **examples("outpost filter explain study/", "outpost filter check rules/brain.yaml"),
    )
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    explain = verbs.add_parser(
        "explain",
        help="show what each rule says of a file or folder; exit 1 when a study is rejected",
        **examples("outpost filter explain study/ --config /etc/outpost/brain.yaml"),
    )
    explain.add_argument("path", type=Path, metavar="PATH", help="a DICOM file, or a folder to search")
    source = explain.add_mutually_exclusive_group()
    source.add_argument("--rules", type=Path, metavar="FILE", help="rule file to judge by")
    source.add_argument("--bundle", type=Path, metavar="PATH", help="judge by the rules this bundle ships")
    source.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="judge by the rules of this system (default: $OUTPOST_CONFIG)",
    )
    add_language(explain)
    add_json(explain, "print everything as JSON, a list of studies")
    explain.set_defaults(run=_explain)

    pixels = verbs.add_parser(
        "pixels",
        help="show what the pixel verdict finds in each image; exit 1 when one is refused or held",
        **examples("outpost filter pixels image.dcm --rules rules/brain.yaml"),
    )
    pixels.add_argument("path", type=Path, metavar="PATH", help="a DICOM image, or a folder to search")
    source = pixels.add_mutually_exclusive_group()
    source.add_argument("--rules", type=Path, metavar="FILE", help="rule file whose `pixels` to judge by")
    source.add_argument("--bundle", type=Path, metavar="PATH", help="judge by the rules this bundle ships")
    source.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="judge by the rules of this system (default: $OUTPOST_CONFIG)",
    )
    add_language(pixels)
    add_json(pixels, "print everything as JSON, a list of images")
    pixels.set_defaults(run=_pixels)

    check = verbs.add_parser(
        "check",
        help="validate a rule file: line, key, reason and remedy of each fault; exit 1 when there is one",
        **examples("outpost filter check rules/brain.yaml"),
    )
    check.add_argument("path", type=Path, metavar="FILE")
    add_language(check)
    add_json(check, "print the faults as JSON")
    check.set_defaults(run=_check)


def _explain(options: argparse.Namespace) -> int:
    from outpost.filter.explain import explain, text
    from outpost.filter.rulefile import RulesInvalid, rules_of

    if not options.path.exists():
        complain("", f"{options.path} does not exist: name a DICOM file or a folder", options.language)
        return 2
    try:
        rules = rules_of(_source(options))
    except RulesInvalid as invalid:
        print(faults(str(invalid), options.language), file=sys.stderr)
        return 2
    studies = explain(options.path, rules)
    if options.json:
        print(json.dumps([study.as_json() for study in studies]))
    else:
        print("\n\n".join(text(number, study, options.language) for number, study in enumerate(studies, 1)))
    rejected = not studies or any(study.as_json()["decision"] == "reject" for study in studies)
    return int(rejected)


def _pixels(options: argparse.Namespace) -> int:
    from outpost.filter.pixels import judge_file
    from outpost.filter.rulefile import RulesInvalid, rules_of

    if not options.path.exists():
        complain("", f"{options.path} does not exist: name a DICOM image or a folder", options.language)
        return 2
    try:
        policy = rules_of(_source(options)).rules.pixels
    except RulesInvalid as invalid:
        print(faults(str(invalid), options.language), file=sys.stderr)
        return 2
    path: Path = options.path
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    found = [(file.name, judge_file(file, policy)) for file in files]
    if options.json:
        print(json.dumps([{"file": name, "findings": findings} for name, findings in found]))
    else:
        for name, findings in found:
            print(name)
            for one in findings or [{"action": "accept", "code": "nothing found", "detail": ""}]:
                words = (spoken(one[key], options.language) for key in ("action", "code", "detail"))
                print("  " + "  ".join(filter(None, words)))
    return int(any(one["action"] != "accept" for _, findings in found for one in findings))


def _source(options: argparse.Namespace) -> Path | None:
    from outpost.config import Config, load
    from outpost.filter.rulefile import source_of

    if options.bundle is not None:
        return source_of(options.bundle, None)
    configured = options.config or os.environ.get("OUTPOST_CONFIG")
    if configured and options.rules is None:
        config = load(Path(configured), Config)
        return source_of(config.inference.bundle, config.filter.rules)
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
            print(faults(str(invalid), options.language), file=sys.stderr)
        return Exit.FOUND
    if options.json:
        print(json.dumps({"ok": True, "faults": [], "digest": file.digest, "rules": len(file.rules.rules)}))
    else:
        told = f"{options.path}: ok, {len(file.rules.rules)} rules, sha256 {file.digest}"
        print(spoken(told, options.language))
    return 0
