"""What a notebook of the course must be like. Each rule takes a notebook (its JSON) and yields complaints.

The rules are those of ``test_notebooks.py``, which holds every notebook to them, and a broken one to each.
"""

import ast
import importlib
import json
import re
from dataclasses import is_dataclass

from a2lite.course.student import BEGIN, END, tags

COLUMNS, LINES, AVERAGE_LINES, KILOBYTES = 79, 25, 12, 500
STATUS = ("reproduced", "simplified", "not attempted")
SECTION = r"(Sec\.|Section|Sections|§|App\.|Appendix|Eq\.|Table)\s*[\dA-Z]"
TIME = r"\b{profile}\b[^\n]*?\b(s|seconds?|min|minutes?|h|hours?)\b"
ABSOLUTE = r"(?<![\w.:/])/(home|Users|root|tmp|work|usr|opt|var|mnt)/|\b[A-Z]:\\"


def source(cell):
    return "".join(cell["source"])


def cells(notebook, kind):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def outputs(notebook):
    return [output for cell in cells(notebook, "code") for output in cell["outputs"]]


def opening(notebook):
    """The first cell: a title, the paper's section, and the time per profile."""
    first = notebook["cells"][0]
    text = source(first)
    if first["cell_type"] != "markdown" or not text.startswith("# "):
        yield "the first cell is not a markdown title"
    if not re.search(SECTION, text):
        yield "the first cell does not name the paper's section"
    for profile in ("tiny", "laptop"):
        if not re.search(TIME.format(profile=profile), text):
            yield f"the first cell does not say how long {profile} takes"


PARAMETERS = '''profile = "tiny"  # tiny | laptop | a100
size = ""  # "" is the profile's own; "nano" shrinks everything, for tests
model_dir = ""  # Step-Audio-2-mini's folder; "" is the kit's own model
flame_path = ""  # FLAME's generic_model.pkl; "" is the kit's own head
data_dir = ""  # a folder of samples; "" is the synthetic world
num_gpus = 0  # processes that train; 0 is this notebook itself
output_dir = ""  # where results go; "" is runs/<profile>
'''
PLACE = """place = Workplace(profile, size, model_dir, flame_path, data_dir,
                  num_gpus, output_dir)
"""
PAST = r"""find_artefact\(.*profile|load_samples\(profile|load_config\(profile\)|["']runs\b"""


def parameters(notebook):
    """The first code cell: what all notebooks share, word for word, then typed literals, each with a comment."""
    tagged = [cell for cell in notebook["cells"] if "parameters" in tags(cell)]
    if tagged != cells(notebook, "code")[:1]:
        yield "the first code cell, and no other, must have the tag 'parameters'"
        return
    text = source(tagged[0])
    if not (text + "\n").startswith(PARAMETERS):
        yield f"the parameters must begin as in every notebook:\n{PARAMETERS}"
    for statement in ast.parse(text).body:
        line = text.splitlines()[statement.end_lineno - 1]
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or not _is_literal(statement.value):
            yield f"not a plain literal: {line}"
        if "  # " not in line:
            yield f"no trailing comment: {line}"


def workplace(notebook):
    """The second code cell makes the ``Workplace`` of the parameters; all that is read and written goes through it."""
    code = [source(cell) + "\n" for cell in cells(notebook, "code")]
    if PLACE not in code[1]:
        yield f"the first code cell after the parameters must hold:\n{PLACE}"
    for text in code:
        for found in re.findall(PAST, text):
            yield f"goes past the workplace: {found}"
    shared = [target.id for node in ast.parse(PARAMETERS).body for target in node.targets]
    taken = sum((list(assigned(ast.parse(text))) for text in code[1:]), [])
    for name in [name for name in shared if name in taken] + ["place"] * (taken.count("place") > 1):
        yield f"gives another value to {name}, which all notebooks share"


def assigned(node):
    """The names that a cell gives a value to, outside of its functions and comprehensions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.id
        if not isinstance(child, ast.FunctionDef | ast.ClassDef | ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp
                          | ast.GeneratorExp):  # fmt: skip
            yield from assigned(child)


def _is_literal(node):
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def code_size(notebook):
    """Small cells that fit on a printed page."""
    lines = [source(cell).splitlines() for cell in cells(notebook, "code")]
    average = sum(map(len, lines)) / len(lines)
    if average > AVERAGE_LINES:
        yield f"code cells have {average:.1f} lines on average, more than {AVERAGE_LINES}"
    for cell in lines:
        if len(cell) > LINES:
            yield f"a code cell of {len(cell)} lines, more than {LINES}: {cell[0]}"
        for line in cell:
            if len(line) > COLUMNS:
                yield f"{len(line)} columns: {line}"


def prose(notebook):
    """At least half of the words are prose."""
    prose, code = ("\n".join(map(source, cells(notebook, kind))).split() for kind in ("markdown", "code"))
    share = len(prose) / (len(prose) + len(code))
    if share < 0.5:
        yield f"{share:.0%} of the words are prose, less than half"


def executed(notebook):
    """Committed as it came out of one run from top to bottom, without errors, widgets or bulk."""
    counts = [cell["execution_count"] for cell in cells(notebook, "code") if source(cell).strip()]
    if counts != list(range(1, len(counts) + 1)):
        yield f"not executed once from top to bottom: execution counts {counts}"
    if any(output["output_type"] == "error" for output in outputs(notebook)):
        yield "an output is an error"
    if "widgets" in notebook["metadata"]:
        yield "widget state is stored in the notebook's metadata"
    if any("widget" in kind for output in outputs(notebook) for kind in output.get("data", {})):
        yield "an output is a widget, which shows nothing without its kernel"
    size = len(json.dumps(notebook, indent=1, ensure_ascii=False).encode()) / 1000
    if size >= KILOBYTES:
        yield f"{size:.0f} kB, not under {KILOBYTES}"


def compared(notebook):
    """At least three cells whose outputs nbval compares; a cell that was not executed compares nothing."""
    tagged = [cell for cell in cells(notebook, "code") if "nbval-check-output" in tags(cell)]
    if len(tagged) < 3:
        yield f"{len(tagged)} cells with the tag 'nbval-check-output', less than 3"
    for cell in tagged:
        if not cell["outputs"]:
            yield f"a cell tagged 'nbval-check-output' has no outputs to compare: {source(cell)}"


def portable(notebook):
    """Nothing of the machine it ran on, and nothing that installs or fetches."""
    printed = [str(output.get("text", "")) + str(output.get("data", {})) for output in outputs(notebook)]
    for text in [source(cell) for cell in notebook["cells"]] + printed:
        for found in re.finditer(ABSOLUTE + ".{0,40}", text):
            yield f"an absolute path: {found[0]}"
    for cell in cells(notebook, "code"):
        if re.search(r"^\s*[!%]", source(cell), re.MULTILINE):
            yield f"a shell command or magic: {source(cell)}"


def captions(notebook):
    """Every figure is followed by a caption that says what to see in it."""
    following = [*notebook["cells"][1:], {"cell_type": "none", "source": ""}]
    for cell, after in zip(notebook["cells"], following, strict=True):
        shown = [kind for output in cell.get("outputs", []) for kind in output.get("data", {})]
        captioned = after["cell_type"] == "markdown" and source(after).startswith("*Figure:")
        if any(kind.startswith("image/") for kind in shown) and not captioned:
            yield f"a figure without a caption (a markdown cell '*Figure: ...*' after it): {source(cell)}"


def paper_map(notebook):
    """A table ``paper | here | symbol | status`` whose symbols exist."""
    texts = [source(cell) for cell in cells(notebook, "markdown")]
    found = [text for text in texts if "## Paper map" in text.splitlines()]
    if len(found) != 1:
        yield f"{len(found)} cells with the heading '## Paper map', not one"
        return
    lines = [line.strip() for line in found[0].splitlines() if line.strip().startswith("|")]
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
    if rows[:1] != [["paper", "here", "symbol", "status"]] or len(rows) < 3:
        yield "the table's columns must be paper | here | symbol | status, with rows below"
        return
    for row in rows[2:]:
        if len(row) != 4 or not row[3].startswith(STATUS):
            yield f"a row must have four columns and a status ({', '.join(STATUS)}): {row}"
            continue
        symbols = re.findall(r"`([^`]+)`", row[2])
        if not symbols and not row[3].startswith("not attempted"):
            yield f"a row names no symbol: {row}"
        for symbol in symbols:
            if not resolves(symbol):
                yield f"no such symbol: {symbol}"


def resolves(symbol):
    """Whether a dotted path such as ``a2lite.rvq.MotionRVQ.encode`` leads to something in the library."""
    parts = symbol.split(".")
    for count in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for name in parts[count:]:
            field = is_dataclass(thing) and name in thing.__dataclass_fields__
            if not field and not hasattr(thing, name):
                return False
            thing = getattr(thing, name, None)
        return parts[0] == "a2lite"
    return False


def exercises(notebook):
    """Two to four exercises, the answer within a function, each followed by its check."""
    code = cells(notebook, "code")
    places = [place for place, cell in enumerate(code) if "exercise" in tags(cell)]
    if not 2 <= len(places) <= 4:
        yield f"{len(places)} exercises, not 2 to 4"
    for place in places:
        lines = source(code[place]).splitlines()
        if not any(line.strip() == BEGIN and line.startswith(" ") for line in lines):
            yield f"an exercise without {BEGIN!r} inside a function: {lines[0]}"
        if not any(line.strip() == END for line in lines):
            yield f"an exercise without {END!r}: {lines[0]}"
        if "check" not in tags(code[place + 1 : place + 2][0] if place + 1 < len(code) else {"metadata": {}}):
            yield f"an exercise whose next code cell is no check: {lines[0]}"
    checks = [place for place, cell in enumerate(code) if "check" in tags(cell)]
    if checks != [place + 1 for place in places]:
        yield "every check must follow its exercise"


def closing(notebook):
    """The last code cell reports the figures and asserts sane bounds."""
    last = source(cells(notebook, "code")[-1])
    if "report(" not in last or not re.search(r"^\s*assert ", last, re.MULTILINE):
        yield "the last code cell must call course.report(...) and assert sanity bounds"


RULES = [
    opening,
    parameters,
    workplace,
    code_size,
    prose,
    executed,
    compared,
    portable,
    captions,
    paper_map,
    exercises,
    closing,
]
