"""Checks that the documents name only tests and files that exist.

A test is cited in backticks as `Suite.Name`; `.Name` belongs to the suite cited
before it in the same line, `*` stands for any characters, and parameters may
follow: `Instance/Suite.Name/Case`. A file is cited by its path from the root,
`tests/bench/x.cc`. Prints every citation that leads nowhere.

usage: cited_tests.py ROOT
"""

import fnmatch
import pathlib
import re
import sys

TEST = re.compile(r"\b(?:TYPED_)?TEST(?:_F|_P)?\(\s*(\w+)\s*,\s*(\w+)\s*\)")
QUOTED = re.compile(r"`([^`\n]+)`")
CITED = re.compile(r"(?:\w+/)?(\w+Test)?\.([A-Z*][\w*]*)(?:/[\w*]+)?")
PATH = re.compile(
    r"(?:client|core|deploy|docs|proto|server|tests|third_party)/[\w./-]*")


def defined_tests(root):
    """All 'Suite.Name' of the tree."""
    tests = set()
    for source in (root / "tests").rglob("*.cc"):
        for suite, name in TEST.findall(source.read_text()):
            tests.add(f"{suite}.{name}")
    return tests


def cited_tests(line):
    """The 'Suite.Name' patterns of one line, continuations made whole."""
    suite = None
    for quoted in QUOTED.findall(line):
        cited = CITED.fullmatch(quoted)
        if not cited:
            continue
        suite = cited.group(1) or suite
        yield f"{suite}.{cited.group(2)}"


def check(root, tests, document):
    """(citations, complaints) of one document."""
    citations = 0
    complaints = []
    for number, line in enumerate(document.read_text().splitlines(), 1):
        where = f"{document.relative_to(root)}:{number}"
        for pattern in cited_tests(line):
            citations += 1
            if not fnmatch.filter(tests, pattern):
                complaints.append(f"{where}: there is no test {pattern}")
        for quoted in QUOTED.findall(line):
            if not PATH.fullmatch(quoted):
                continue
            citations += 1
            if not (root / quoted).exists():
                complaints.append(f"{where}: there is no file {quoted}")
    return citations, complaints


def self_test():
    """The check would be worthless if it could not fail."""
    line = "| x | `ATest.B`, `.C*`, `I/DTest.E/*` and `stage.h`, `.gz` |"
    assert list(cited_tests(line)) == ["ATest.B", "ATest.C*", "DTest.E"]
    assert TEST.findall("TEST_P(A,\n       B) {") == [("A", "B")]


def main():
    self_test()
    root = pathlib.Path(sys.argv[1]).resolve()
    tests = defined_tests(root)
    documents = [root / "CONTRIBUTING.md", root / "README.md",
                 *sorted((root / "docs").rglob("*.md"))]
    citations = 0
    complaints = []
    for document in documents:
        if document.exists():
            found = check(root, tests, document)
            citations += found[0]
            complaints += found[1]
    print("\n".join(complaints))
    print(f"{len(tests)} tests, {citations} citations, "
          f"{len(complaints)} of them wrong")
    # No citation at all would mean that nothing was looked at.
    return 1 if complaints or not tests or not citations else 0


if __name__ == "__main__":
    sys.exit(main())
