"""`learn build`: the solutions pass, and what is typically wrong gets a hint that names it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from streamtok import cli
from streamtok.teach.build import reader
from streamtok.teach.build.exercise import Exercise, Wrong
from streamtok.teach.build.exercises import EXERCISES

BY_NAME = {exercise.name: exercise for exercise in EXERCISES}
ONE_READ_ONE_EVENT = """def texts(receive: Callable[[], bytes]) -> Iterator[str]:
    while data := receive():
        for line in data.decode().splitlines():
            if line.startswith("data: {"):
                yield json.loads(line[6:])["choices"][0]["text"]


def main()"""
CUT_IS_COMPLETE = """def _all(receive, texts=texts):
    try:
        yield from texts(receive)
    except EOFError:
        pass


texts = _all


def main()"""
LEAKY = """def released(tokens, stop):
    text = ""
    for token in tokens:
        text += token
        if stop in text:
            return
        yield token


if __name__"""
CAUGHT = """        try:
            await writer.drain()
        except ConnectionError:
            pass"""
BLOCKED = """    import time
    async for token in tokens:
        time.sleep(0.02)
"""
WRONG = [  # exercise, what of the solution is replaced, by what, and words of the hint
    ("chunked", 'b"%x', 'b"%d', "decimal"),
    ("chunked", "(len(data), data)", "(len(token), data)", "counts the characters of"),
    ("chunked", '    connection.sendall(b"0\\r\\n\\r\\n")\n', "", "without the zero chunk"),
    ("chunked", "        if data:", "        if True:", "skip empty tokens"),
    ("chunked", "in tokens()", "in list(tokens())", "all chunks came at once"),
    ("chunked", 'close\\r\\n"\n    b"\\r\\n"', 'close\\r\\n"', "no empty line ends the head"),
    ("events", "})}\\n\\n", "})}\\n", "by an empty line"),
    ("events", "json.dumps({'choices': [choice]})", "{'choices': [choice]}", "json.dumps writes"),
    ("events", 'chunk(b"data: [DONE]\\n\\n") + ', "", "without it they cannot tell"),
    ("reader", "def main()", ONE_READ_ONE_EVENT, "ended inside an event"),
    ("reader", "def main()", CUT_IS_COMPLETE, "that answer is not complete"),
    ("reader", '.removeprefix(" ")', "[1:]", "the space behind `data:` is optional"),
    ("sampled", "/ temperature)", "* temperature)", "divided by the temperature, not"),
    ("sampled", "total < top_p", "total + weights[kept] <= top_p", "belongs to those that are"),
    ("sampled", "    if temperature == 0:\n        return order[0]\n", "", "nothing to divide by"),
    ("sampled", "if __name__", LEAKY, "hold back an end"),
    ("sampled", "held[sure:]\n    yield held\n", "held[sure:]\n", "at the end, release it"),
    ("clients", "        await writer.drain()", "        pass", "drain"),
    ("clients", "        await writer.drain()", CAUGHT, "let it end the answer|nobody noticed"),
    ("clients", "    async for token in tokens:\n", BLOCKED, "one after the other"),
    ("doctored", 'yield "[DONE]"', 'yield json.dumps("[DONE]")', "done-missing"),
    ("doctored", "return status, {", "return 200, {", "error-under-200"),
    ("doctored", '"id": f"chatcmpl-{random.getrandbits(64):x}",\n', "", "chunk-keys"),
]


def saved(exercise: Exercise, text: str, folder: Path) -> Path:
    file = folder / f"{exercise.name}.py"
    file.write_text(text)
    return file


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMTOK_PROGRESS", str(tmp_path / "progress"))


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
def test_a_solution_passes(exercise: Exercise, tmp_path: Path) -> None:
    passed = list(exercise.grade(saved(exercise, exercise.solution, tmp_path)))
    assert len(passed) >= 2


@pytest.mark.parametrize(("name", "old", "new", "hint"), WRONG)
def test_what_is_wrong_is_named(name: str, old: str, new: str, hint: str, tmp_path: Path) -> None:
    exercise = BY_NAME[name]
    assert old in exercise.solution
    text = exercise.solution.replace(old, new)
    with pytest.raises(Wrong) as wrong:
        list(exercise.grade(saved(exercise, text, tmp_path)))
    assert any(words in str(wrong.value) for words in hint.split("|")), wrong.value


def test_each_exercise_has_three_typical_mistakes_and_hints() -> None:
    for exercise in EXERCISES:
        assert sum(name == exercise.name for name, *_ in WRONG) >= 3
        assert len(exercise.hints) >= 3
        assert "#" in exercise.real


def test_an_exercise_is_begun_hinted_at_graded_and_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learn: Callable[..., int] = lambda *words: cli.main(["learn", "build", *words])  # noqa: E731
    assert learn() == 0
    assert "A chunked response by hand" in capsys.readouterr().out
    assert learn("1") == 0
    file = tmp_path / "build_1_chunked.py"
    assert file.read_text() == BY_NAME["chunked"].skeleton
    assert learn("1") == 1
    assert "complete it where it says YOUR CODE" in " ".join(capsys.readouterr().out.split())
    for number in (1, 2, 3):
        assert learn("1", "--hint") == 0
        assert f"Hint {number} of 3" in capsys.readouterr().out
    assert learn("1", "--hint") == 0
    assert "There are no more" in capsys.readouterr().out
    assert learn("1", "--solution") == 0
    file.write_text(capsys.readouterr().out)
    assert learn("1") == 0
    assert "netty" in capsys.readouterr().out.lower()
    assert learn() == 0
    assert " 1  done  A chunked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["7"], "exercise '7': expected a number from 1 to 6"),
        (["x"], "exercise 'x'"),
        (["1", "a", "b"], "found also 'b'"),
        (["1", "no/such/folder.py"], "no/such/folder.py: cannot be written"),
    ],
)
def test_wrong_use_is_named(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["learn", "build", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    for name, text, said in (
        ("chunked", "raise OSError('no luck')", "OSError: no luck"),
        ("reader", "import sys\nsys.exit('no luck')", "no luck"),
        ("reader", "print(1)", "expected a line of JSON for each port"),
    ):
        with pytest.raises(Wrong, match=said):
            list(BY_NAME[name].grade(saved(BY_NAME[name], text, tmp_path)))


def test_the_streams_of_exercise_3_hold_what_they_say() -> None:
    wholes = [case for case in reader.CASES if case.ends == reader.COMPLETE]
    assert len({case.name for case in reader.CASES}) == len(reader.CASES)
    assert all(b"".join(case.reads).endswith(b"0\r\n\r\n") for case in wholes)
