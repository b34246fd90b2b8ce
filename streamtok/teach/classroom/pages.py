"""The pages of a class as HTML: forms and tables, no script."""

import re
from collections.abc import Sequence
from html import escape

from streamtok.observe.annotate import escape as escape_bytes
from streamtok.teach.build.exercise import Exercise
from streamtok.teach.build.exercises import EXERCISES
from streamtok.teach.classroom.roster import Learner
from streamtok.teach.lessons import LESSONS
from streamtok.teach.lessons.lesson import Block, Lesson, Question, Table, Wire
from streamtok.teach.lessons.screen import selected

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:1rem auto;padding:0 1rem;color:#222}
body.two{max-width:none;margin:0;padding:0;display:flex;height:100vh}iframe{flex:1;border:0}
iframe+iframe{border-left:1px solid #ccc}table{border-collapse:collapse;margin:1rem 0}
td,th{text-align:left;padding:.1rem .8rem .1rem 0;vertical-align:top}pre,code,.wire{font:13px/1.4
ui-monospace,monospace}.wire td{white-space:pre-wrap;word-break:break-all}
.wire td.note{word-break:normal}.note{color:#667}
nav a{margin-right:.5rem}form{margin:.5rem 0;padding:.6rem;background:#f4f5f8}label{display:block}
.right{color:#186a3b}.wrong{color:#a04000}pre{background:#f4f5f8;padding:.6rem;overflow:auto}
@media(max-width:60rem){body.two{flex-direction:column}}
"""


def document(title: str, body: str, *, refresh_s: int = 0, kind: str = "") -> bytes:
    """Return a page."""
    refresh = f'<meta http-equiv="refresh" content="{refresh_s}">' if refresh_s else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">{refresh}'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
        f'<body class="{kind}">{body}</body></html>'
    ).encode()


def door(problem: str = "") -> bytes:
    """Return where people come in."""
    said = f'<p class="wrong">{escape(problem)}</p>' if problem else ""
    form = (
        '<form method="post" action="/class/join"><label>Your name '
        '<input name="name" autofocus maxlength="64" required></label>'
        "<button>Come in</button></form>"
    )
    return document("streamtok class", f"<h1>How a model's text streams</h1>{said}{form}")


def desk(path: str) -> bytes:
    """Return the lesson on the left, and the chat with its wire on the right."""
    frames = f'<iframe src="{escape(path)}"></iframe><iframe src="/" title="chat"></iframe>'
    return document("streamtok class", frames, kind="two")


def lesson_page(number: int, lesson: Lesson, blocks: Sequence[Block], learner: Learner) -> bytes:
    """Return a lesson for a learner, with what they have answered and tried."""
    parts = [navigation(learner), f"<h1>{number}. {escape(lesson.title)}</h1>"]
    for place, block in enumerate(blocks):
        parts.append(_block(block))
        if isinstance(block, Question):
            parts.append(_question(number, place, block, learner))
    parts.append(
        f"<h2>Your turn</h2><p>{_text(lesson.invitation)}</p>"
        f'<form method="post" action="/class/try/{number}">'
        f'<input name="given" value="{escape(lesson.default)}" maxlength="200">'
        "<button>Try it</button></form>"
    )
    parts.append(learner.tried.get(lesson.name, ""))
    parts.append(f'<p class="note">The code: <code>{escape(lesson.module)}</code></p>')
    return document(lesson.title, "".join(parts))


def exercise_page(number: int, exercise: Exercise, learner: Learner) -> bytes:
    """Return an exercise, which is done on the learner's own machine."""
    hints = "".join(
        f"<details><summary>Hint {place}</summary>{_text(hint)}</details>"
        for place, hint in enumerate(exercise.hints, 1)
    )
    done = exercise.name in learner.done
    form = (
        '<p class="right">Done.</p>'
        if done
        else f'<form method="post" action="/class/done/{number}"><button>It passes</button></form>'
    )
    body = (
        f"{navigation(learner)}<h1>Exercise {number}: {escape(exercise.title)}</h1>"
        f"<p>{_text(exercise.task)}</p><pre>{escape(exercise.skeleton)}</pre>"
        f"<p>On your own machine: <code>streamtok learn build {number}</code> writes this file, "
        f"and grades it.</p>{hints}{form}<p class=note>{_text(exercise.real)}</p>"
    )
    return document(exercise.title, body)


def room_page(learners: Sequence[Learner]) -> bytes:
    """Return who is where, for the teacher."""
    rows = "".join(
        f"<tr><td>{escape(one.name)}<td>{escape(one.place)}"
        f"<td>{sum(one.answers.values())} of {len(one.answers)}"
        f"<td>{len(one.tried)}<td>{len(one.done)} of {len(EXERCISES)}<td>{one.requests}"
        for one in learners
    )
    head = "<tr><th>name<th>where<th>right answers<th>tried<th>exercises<th>requests to the model"
    body = (
        f"<h1>{len(learners)} in the room</h1><table>{head}{rows}</table>"
        '<p class="note">Tokens by name: <code>GET /v1/usage</code>.</p>'
    )
    return document("who is where", body, refresh_s=3)


def navigation(learner: Learner) -> str:
    """Return links to all lessons and exercises."""
    lessons = "".join(
        f'<a href="/class/lesson/{number}" title="{escape(lesson.title)}">{number}</a>'
        for number, lesson in enumerate(LESSONS, 1)
    )
    exercises = "".join(
        f'<a href="/class/exercise/{number}" title="{escape(exercise.title)}">{number}</a>'
        for number, exercise in enumerate(EXERCISES, 1)
    )
    return f"<nav>{escape(learner.name)} &middot; lessons {lessons} exercises {exercises}</nav>"


def blocks_html(blocks: Sequence[Block]) -> str:
    """Return what a change showed."""
    return "".join(map(_block, blocks))


def mistake_html(text: str) -> str:
    """Return what is said where something cannot be tried."""
    return f'<p class="wrong">That cannot be tried: {_text(text)}</p>'


def _block(block: Block) -> str:
    if isinstance(block, str):
        return f"<p>{_text(block)}</p>"
    if isinstance(block, Wire):
        mark = "&gt;" if block.sent else "&lt;"
        rows = "".join(
            f"<tr><td>{mark}<td>{escape(''.join(escape_bytes(line.data)))}"
            f'<td class="note">{escape(line.note) if block.notes else ""}'
            for line in selected(block)
        )
        return f'<table class="wire">{rows}</table>'
    if isinstance(block, Table):
        head = "".join(f"<th>{escape(name)}" for name in block.columns)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in block.rows
        )
        return f"<table><tr>{head}{rows}</table>"
    return f"<h2>Question</h2><p><b>{_text(block.text)}</b></p>"


def _question(number: int, place: int, question: Question, learner: Learner) -> str:
    """Return the form of a question, or what is said of the learner's answer."""
    key = f"{number}.{place}"
    said = learner.shown.get(key, "")
    if learner.answers.get(key):
        return said
    inputs = (
        "".join(
            f'<label><input type="radio" name="given" value="{escape(option)}" required> '
            f"{_text(option)}</label>"
            for option in question.options
        )
        or '<input name="given" maxlength="80" required>'
    )
    action = f"/class/answer/{number}/{place}"
    return f'{said}<form method="post" action="{action}">{inputs}<button>Answer</button></form>'


def _text(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def verdict(kind: str, word: str, text: str) -> str:
    """Return what is said of an answer; `kind` is right or wrong."""
    return f'<p class="{kind}"><b>{word}</b> {_text(text)}</p>'
