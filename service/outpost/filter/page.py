"""The rule language as a page of documentation, made from what checks and judges rule files."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from outpost.filter.codes import FILTER_REASONS
from outpost.filter.facts import FACTS
from outpost.filter.pixel_policy import PixelPolicy
from outpost.filter.rulefile import known_classes, parse_rules
from outpost.filter.rules import OPERATORS, Condition, Rule, RuleSet

EXAMPLE: Final = """\
about: chest CT of adults, thin axial slices

known:
  reformatted: exclude          # on top of what is left out by default
  secondary-capture: keep       # this hospital has nothing else

missing: pixels                 # of rules that do not say: let the pixels decide

rules:
  - name: adults
    scope: study
    require: {tag: PatientAge, at_least: 18}
    missing: accept
    code: AGE_UNWANTED

  - name: thin-and-axial
    scope: series
    require:
      all:
        - {fact: orientation, equals: axial}
        - {fact: slice_spacing_mm, between: [0.5, 2.5]}
        - {fact: images, at_least: 40}
        - not: {tag: ConvolutionKernel, matches: '^(bone|b[67]\\d)'}
    code: SPACING_UNWANTED

  - name: chest
    about: BodyPartExamined is wrong too often to reject by
    scope: series
    require:
      any:
        - {tag: BodyPartExamined, in: [CHEST, THORAX, LUNG]}
        - {tag: StudyDescription, matches: 'chest|thorax|lung|груд|легк'}
    unmet: pixels
    code: BODY_PART_UNWANTED

  - name: not-ours
    scope: study
    exclude: {tag: InstitutionalDepartmentName, contains: veterinary}
    missing: accept
    code: SITE_NOT_OURS

pixels:
  expected_anatomy: [body_slice]
"""

_INTRODUCTION: Final = """\
# The rules of the filter

Made by `python -m outpost.filter > docs/filter-rules.md` from what checks and judges rule files; a test
holds it to that.

A rule set says which instances, series and studies are worth computing. A bundle may ship one
(`filter.yaml` beside its `outpost.yaml`); a site puts its own in its place by `filter.rules` in the
system's configuration. Without any, what is known by name to be no image is left out, and nothing else.

- What is left out of a study whose rest goes on is counted (`outpost_instances_left_out_total`) and logged;
  when nothing is left, the study ends as *rejected* with the code of the most instances. Its files go to
  quarantine; nothing is deleted.
- A wrong file stops the start, with line, key, reason and the nearest right key: `outpost filter check
  FILE` tells the same.
- A changed file takes effect within seconds, without a restart; studies on their way are judged by one or
  the other. A file that has become wrong changes nothing: the rules before it go on judging, and the health
  check `FILTER_RULES` and the event `FILTER_RULES_REFUSED` say so. Which rules judged is in the event
  `FILTER_RULES_CHANGED` and in each rejection, by the first 12 digits of the file's sha256; a copy of every
  rule set that judged is in `rules/` of the system's storage.
- `outpost filter explain PATH` shows what each rule says of a file or folder, with the values found and
  wanted. Values that tell who the patient is are never shown, whatever a rule asks.

## Order

Kinds known by name and rules of `scope: instance`, for each instance; then kinds and rules of `scope:
series`, for what is left of each series; then rules of `scope: study`, for what is left of it. Within a
scope kinds come first, quality control before clinical ones, then rules in the order of the file. The first
that leaves something out is its reason.

## Unknown

Tags are missing in 6 to 75 % of the studies of a city's archive, and up to 70 % of the values that are
there are wrong (Borisov et al. 2023, doi 10.24835/1607-0763-1346). So a condition is true, false or
*unknown*: where the attribute is missing, empty or unreadable, or is no number and one is wanted. `all` is
false if one part is false, else unknown if one is unknown; `any` is true if one part is true, else unknown
if one is; `not` of unknown is unknown. What follows from unknown is the rule's `missing`: `accept`,
`reject` (counted as `ATTRIBUTE_MISSING`), or `pixels`, the default: take it, and have the pixel verdict
decide. For attributes that are there but not to be trusted a rule says `unmet: pixels`. A kind known by
name is one only if its condition is true.

## Example

```yaml
{example}```

YAML is read with two differences, as attributes hold such texts: only `true` and `false` are truth values
(`NO` is text), and dates and times are text. Text is compared whatever its case. Conditions on UIDs take
keywords too (`MRImageStorage`). `PatientAge` and its like are compared in years. Attributes of patient,
study, series and equipment are read from one instance of each series.

## In the inventory

```yaml
dicom_filter_rules:             # per region, or for all in group_vars/region.yml
  brain: "{{ inventory_dir }}/rules/brain.yaml"     # a file on the controller, or
  chest:                                            # the rule set itself, or
    rules:
      - {name: modality, require: {tag: Modality, in: [CR, DX]}, code: MODALITY_UNWANTED}
  knee: {}                                          # the bundle's own, as for a system not named
```

- The role `dicom_filter` judges every rule set on the controller before the host is asked for anything, in a
  dry run too. A wrong one stops that host with file, line, key, reason and the nearest right key; the other
  hosts go on. In the inventory itself Ansible reads YAML: there `NO` must be in quotes.
- It writes `/etc/outpost/filter/<system>.yaml` and never restarts a system for a change of it; the run ends
  when the service says that the new rule set judges, or fails with what the service says instead. A first
  rule set, or none any more, changes the system's configuration and restarts that one system: its studies
  wait in the spool.
- `playbooks/preflight.yml -l <region>` judges and changes nothing. Where the service's libraries are (`make
  setup` brings them), `outpost filter check FILE` judges a file by itself.

"""


def page() -> str:
    """The page; the example in it is a right rule file."""
    parse_rules(EXAMPLE.encode(), Path("example"))
    return _INTRODUCTION.replace("{example}", EXAMPLE) + "\n".join(_tables()) + "\n"


def _tables() -> Iterator[str]:
    for title, model in (
        ("A rule file", RuleSet),
        ("A rule", Rule),
        ("A condition", Condition),
        ("`pixels`", PixelPolicy),
    ):
        yield from (f"## {title}", "", "| key | default | what |", "|---|---|---|")
        yield from _keys(model)
        yield ""
    yield from ("## Operators", "", "| operator | holds when |", "|---|---|")
    yield from (f"| `{name}` | {about} |" for name, about in OPERATORS.items())
    yield from ("", "## Facts", "", "| fact | of | what | values |", "|---|---|---|---|")
    for name, fact in FACTS.items():
        values = ", ".join(fact.words) or ("a length in mm" if name.endswith("_mm") else "a number")
        yield f"| `{name}` | {', '.join(fact.scopes)} | {fact.about} | {values} |"
    yield from ("", "## Kinds known by name", "")
    yield "Their conditions, in this language: `service/outpost/filter/known.yaml`; `known` switches each."
    yield from ("", "| kind | what | default | scope | code |", "|---|---|---|---|---|")
    for name, kind in known_classes().items():
        yield f"| `{name}` | {kind.about} | {kind.default} | {kind.scope} | `{kind.code}` |"
    yield from ("", "## Codes", "")
    yield "A rule may also have a code of the site's own, beginning with `SITE_`. Codes are never renamed or reused."
    yield from ("", "| code | meaning | remedy |", "|---|---|---|")
    yield from (
        f"| `{code}` | {reason.meaning} | {reason.remedy} |" for code, reason in FILTER_REASONS.items()
    )


def _keys(model: type[BaseModel]) -> Iterator[str]:
    about = _attributes(model)
    for name, field in model.model_fields.items():
        key = field.alias or name
        if key in OPERATORS:
            continue
        default = field.get_default(call_default_factory=True)
        if field.is_required():
            shown = "must be given"
        elif default is None or isinstance(default, BaseModel) or default in ("", (), {}):
            shown = ""
        else:
            shown = f"`{default}`"
        yield f"| `{key}` | {shown} | {about[name]} |"


def _attributes(model: type[BaseModel]) -> dict[str, str]:
    """What the docstring says of each attribute, on one line each."""
    text = inspect.getdoc(model) or ""
    found = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", text.partition("Attributes:")[2], re.MULTILINE)
    return {name: " ".join(about.split()) for name, about in found}
