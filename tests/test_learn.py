"""The lessons: each is gone through on a live server, alone and with someone who answers."""

import builtins
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from documents import help_page
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from processes import STREAMTOK, read_until

from streamtok import cli
from streamtok.http.sse import EventDecoder
from streamtok.observe.annotate import Line, annotate, answer_starts, escape, unescape
from streamtok.teach.doctor.recording import Read, Recording
from streamtok.teach.lessons import (
    LESSONS,
    backpressure,
    cache,
    cancellation,
    chunks,
    forward,
    learn,
    sampling,
    survival,
)
from streamtok.teach.lessons.lab import Exchange, Lab, get, open_lab, post
from streamtok.teach.lessons.lesson import Block, Lesson, Mistake, Question, Table, Wire
from streamtok.teach.lessons.screen import Screen

ROOT = Path(__file__).parent.parent
BY_NAME = {lesson.name: lesson for lesson in LESSONS}
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with open_lab() as running:
        yield running


@dataclass(frozen=True)
class Seen:
    """What a lesson shows, and then what its default change does."""

    show: list[Block]
    change: list[Block]


@pytest.fixture(scope="module")
def seen(lab: Lab) -> Callable[[str], Seen]:
    """Give what is seen in a lesson; each runs once."""
    known: dict[str, Seen] = {}

    def run(name: str) -> Seen:
        if name not in known:
            lesson = BY_NAME[name]
            known[name] = Seen([*lesson.show(lab)], [*lesson.change(lab, lesson.default)])
        return known[name]

    return run


@pytest.fixture(scope="module")
def shown(seen: Callable[[str], Seen]) -> Callable[[str], list[Block]]:
    """Give all that is seen in a lesson."""
    return lambda name: [*seen(name).show, *seen(name).change]


def replayed(lesson: Lesson, seen: Seen) -> Lesson:
    """Return the lesson as it was seen before."""
    return replace(lesson, show=lambda _: iter(seen.show), change=lambda *_: iter(seen.change))


@pytest.fixture(autouse=True)
def progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the progress of whoever runs the tests out of it."""
    path = tmp_path / "state" / "lessons"
    monkeypatch.setenv("STREAMTOK_PROGRESS", str(path))
    return path


def wires(blocks: list[Block], sent: bool = False) -> list[bytes]:
    return [block.data for block in blocks if isinstance(block, Wire) and block.sent == sent]


def question(blocks: list[Block]) -> Question:
    return next(block for block in blocks if isinstance(block, Question))


def tables(blocks: list[Block]) -> list[Table]:
    return [block for block in blocks if isinstance(block, Table)]


def paragraphs(blocks: list[Block]) -> list[str]:
    return [block for block in blocks if isinstance(block, str)]


def answers(raw: bytes) -> list[Any]:
    """Return the answers in what came over a connection."""
    starts = answer_starts(raw)
    parts = [raw[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
    return [Exchange(b"", Recording((Read(0.0, part),))).answer for part in parts]


# What holds for every lesson


def test_there_are_fourteen_and_their_names_differ() -> None:
    assert len(BY_NAME) == len(LESSONS) == 14


@each_lesson
def test_a_lesson_names_a_module_that_exists(lesson: Lesson) -> None:
    assert (ROOT / lesson.module).is_file()


@each_lesson
def test_a_lesson_shows_bytes_and_asks(lesson: Lesson, shown: Callable[[str], list[Block]]) -> None:
    blocks = shown(lesson.name)
    assert wires(blocks)
    asked = question(blocks)
    assert asked.accepts(asked.answer)
    assert asked.accepts(f" {asked.shown.partition(')')[0].upper()} ")
    for wrong in ("", "z", "-1", "no"):
        assert not asked.accepts(wrong)
    assert asked.answer not in asked.hint.split()
    assert not asked.options or asked.answer in asked.options


@each_lesson
def test_no_byte_is_left_out_or_said_twice(
    lesson: Lesson, shown: Callable[[str], list[Block]]
) -> None:
    for data in (*wires(shown(lesson.name)), *wires(shown(lesson.name), sent=True)):
        assert b"".join(line.data for line in annotate(data)) == data


@each_lesson
def test_a_lesson_written_out_fits_80_columns(
    lesson: Lesson,
    lab: Lab,
    seen: Callable[[str], Seen],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(learn, "LESSONS", (replayed(lesson, seen(lesson.name)),))
    monkeypatch.setattr(learn, "open_lab", lambda: nullcontext(lab))
    assert cli.main(["learn", "--plain"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    asked = question(seen(lesson.name).show)
    assert f"Answer: {asked.shown}. {' '.join(asked.why.split())}" in " ".join(text.split())
    assert lesson.module in text


@each_lesson
def test_someone_answers_wrong_then_right(
    lesson: Lesson,
    lab: Lab,
    seen: Callable[[str], Seen],
    progress: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = [block for block in seen(lesson.name).show if isinstance(block, Question)]
    replies = [reply for question in asked for reply in ("no idea", question.answer)]
    replies += ["", ""]  # the default change, and the end
    prompts = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return replies.pop(0)

    monkeypatch.setattr(learn, "LESSONS", (replayed(lesson, seen(lesson.name)),))
    monkeypatch.setattr(learn, "open_lab", lambda: nullcontext(lab))
    monkeypatch.setattr(builtins, "input", reply)
    assert cli.main(["learn", "1"]) == 0
    assert replies == []
    assert f"(Enter tries `{lesson.default}`) " in prompts
    text, place = " ".join(capsys.readouterr().out.split()), 0
    for one in asked:
        for said in (f"Not quite. {one.hint}", f"Right. {one.why}"):
            place = text.index(" ".join(said.split()), place)
    assert progress.read_text() == f"{lesson.name}\n"


def test_after_two_wrong_answers_the_right_one_is_shown(
    lab: Lab,
    seen: Callable[[str], Seen],
    progress: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And what cannot be tried is said to be so, and asked for again."""
    lesson = BY_NAME["events"]
    replies = ["a lot", "hundreds", "many", "5", ""]
    monkeypatch.setattr(
        learn, "LESSONS", (replace(lesson, show=lambda _: iter(seen("events").show)),)
    )
    monkeypatch.setattr(learn, "open_lab", lambda: nullcontext(lab))
    monkeypatch.setattr(builtins, "input", lambda _: replies.pop(0))
    assert cli.main(["learn"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"It is: {question(seen('events').show).answer}." in text
    assert "That cannot be tried: expected a number from 1 to 10000, found 'many'" in text
    assert "the events are the same" in text


# What each lesson says, against the bytes


def test_request_the_change_breaks_a_rule(lab: Lab, shown: Callable[[str], list[Block]]) -> None:
    first, refusal = wires(shown("request"))
    assert answers(first)[0].complete
    assert answers(refusal)[0].status == 400
    *_, unfinished = BY_NAME["request"].change(lab, r"GET / HTTP/1.1\r\n")
    assert "did not end" in str(unfinished)
    _, head = BY_NAME["request"].change(lab, r"HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert isinstance(head, Wire)
    assert head.data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head.data.endswith(b"\r\n\r\n")
    with pytest.raises(Mistake, match="bytes"):
        list(BY_NAME["request"].change(lab, r"GET \x"))


def test_chunks_sizes_are_those_of_the_data(shown: Callable[[str], list[Block]]) -> None:
    blocks = shown("chunks")
    raw = wires(blocks)[0]
    answer = answers(raw)[0]
    sizes = [chunk.end - chunk.start for chunk in answer.chunks]
    assert question(blocks).answer == str(sizes[0])
    table = tables(blocks)[0]
    assert [int(size) for _, size in table.rows] == [*sizes, 0]
    assert [int(line, 16) for line, _ in table.rows] == [*sizes, 0]
    assert any(f"Together {len(answer.body)} bytes" in text for text in paragraphs(blocks))
    assert answers(wires(blocks)[1])[0].status == 400


@pytest.mark.parametrize(
    ("size_line", "status", "said"),
    [
        (f"{len(chunks.BODY):x}", 200, "The size is right"),
        (f"{len(chunks.BODY) - 1:x}", 400, "35 bytes are 0x23"),
        (f"{len(chunks.BODY) + 1:x}", 400, "35 bytes are 0x23"),
        ("zz", 400, "35 bytes are 0x23"),
        ("0x23", 400, "35 bytes are 0x23"),
        ("-1", 400, "35 bytes are 0x23"),
        (str(len(chunks.BODY)), 408, "It never came"),
        ("ffffffff", 413, "takes no body of that size"),
    ],
)
def test_chunks_may_be_tried(lab: Lab, size_line: str, status: int, said: str) -> None:
    blocks = list(chunks.change(lab, size_line))
    assert answers(wires(blocks)[0])[0].status == status
    assert said in paragraphs(blocks)[-1]


@pytest.mark.parametrize("more", [-1, 1])
def test_chunks_a_wrong_size_is_not_called_too_small_where_it_is_too_large(
    lab: Lab, more: int
) -> None:
    blocks = list(chunks.change(lab, f"{len(chunks.BODY) + more:x}"))
    assert b"a chunk does not end where its size says" in wires(blocks)[0]


def test_length_the_head_of_a_whole_answer_waits_for_its_end(
    lab: Lab, shown: Callable[[str], list[Block]]
) -> None:
    blocks = shown("length")
    (_, whole, streamed), _, _ = tables(blocks)[0].rows
    assert float(whole.removesuffix(" ms")) > float(streamed.removesuffix(" ms"))
    assert question(blocks).answer == question(blocks).options[2]
    assert [answer.status for answer in answers(wires(blocks)[-1])] == [400, 400]
    right = list(BY_NAME["length"].change(lab, "41"))
    assert [answer.status for answer in answers(wires(right)[-1])] == [200]


def test_events_do_not_depend_on_chunks(lab: Lab, shown: Callable[[str], list[Block]]) -> None:
    blocks = shown("events")
    answer = answers(wires(blocks)[0])[0]
    assert question(blocks).answer == str(len(EventDecoder().feed(answer.body)))
    for size in ("1", "7", "9999"):
        table = tables(list(BY_NAME["events"].change(lab, size)))[0]
        assert table.rows[0][-1] == question(blocks).answer


def test_tokens_a_character_in_four_tokens_is_one_chunk(
    shown: Callable[[str], list[Block]],
) -> None:
    blocks = shown("tokens")
    stream = answers(wires(blocks)[-1])[0]
    assert stream.body == "\U0001f98a".encode()
    assert len(stream.chunks) == 1
    assert [text for _, _, text in tables(blocks)[0].rows].count("(part of a character)") == 4
    assert bytes.fromhex("".join(row[1] for row in tables(blocks)[0].rows)).decode() == (
        "The fox \U0001f98a smiled."
    )


def test_prefill_the_ledger_agrees(shown: Callable[[str], list[Block]]) -> None:
    blocks = shown("prefill")
    records = [json.loads(answers(data)[0].body) for data in wires(blocks)]
    assert [record["prompt_tokens"] for record in records] == [512, 300]
    first_ms = float(tables(blocks)[0].rows[-1][1].removesuffix(" ms"))
    assert 1000 * records[0]["first_token_s"] <= first_ms


def test_cache_bytes_and_positions(lab: Lab, shown: Callable[[str], list[Block]]) -> None:
    blocks = shown("cache")
    config = json.loads((lab.config.model_folder / "config.json").read_text())
    layers, heads = config["num_hidden_layers"], config["num_key_value_heads"]
    assert question(blocks).answer == str(2 * layers * heads * config["head_dim"] * 4)
    usage = json.loads(wires(blocks)[0])["usage"]
    assert usage["prompt_tokens"] == cache.LENGTH
    assert usage["completion_tokens"] == cache.TOKENS
    (_, kept, _), (_, anew, _) = tables(blocks)[0].rows
    assert int(kept) == usage["total_tokens"] - 1
    assert int(anew) == sum(cache.LENGTH + more for more in range(cache.TOKENS))


def test_sampling_draws_keep_to_the_answer(lab: Lab, shown: Callable[[str], list[Block]]) -> None:
    blocks = shown("sampling")
    for table in tables(blocks)[1:]:
        for column in list(zip(*table.rows, strict=True))[1:]:
            assert sum(int(cell.split()[0]) for cell in column) == sampling.DRAWS
    likely = sampling.shares(lab)[1]
    least = sampling.threshold(likely)
    drawn = set(sampling.draw(lab, min_p=least))
    assert drawn <= set(list(likely)[: int(question(blocks).answer)])


@pytest.mark.parametrize("typed", ["hot", "temperature=hot", "prompt=1", "temperature=9"])
def test_sampling_says_what_cannot_be_tried(lab: Lab, typed: str) -> None:
    with pytest.raises(Mistake, match=r"[eE]xpected|must be"):
        list(sampling.change(lab, typed))


def test_pipelining_answers_come_in_order(lab: Lab, shown: Callable[[str], list[Block]]) -> None:
    blocks = shown("pipelining")
    stream, health, models = answers(wires(blocks)[0])
    assert stream.chunked
    assert json.loads(health.body) == {"status": "ok"}
    assert json.loads(models.body)["object"] == "list"
    assert len(tables(blocks)[0].rows) == 3
    for last in (1, 2, 3):
        raw = wires(list(BY_NAME["pipelining"].change(lab, str(last))))[0]
        assert len(answers(raw)) == last


def test_backpressure_pauses_and_loses_nothing(shown: Callable[[str], list[Block]]) -> None:
    blocks = shown("backpressure")
    paused, complete = wires(blocks)
    assert paused == b"streamtok_running_streams %d.0\n" % backpressure.CHOICES
    assert complete == b"streamtok_running_streams 0.0\n"
    for table in tables(blocks):
        (_, _, eager, _), (_, _, late, _) = table.rows
        assert eager == late
        assert [row[-1] for row in table.rows] == ["yes", "yes"]


def test_cancellation_computes_few_more_than_were_read(
    shown: Callable[[str], list[Block]],
) -> None:
    records = [json.loads(answers(data)[0].body) for data in wires(shown("cancellation"))[1:]]
    for record, read in zip(records, (cancellation.LEAVE_AFTER, 20), strict=True):
        assert record["finish_reason"] == "cancelled"
        assert read <= record["generated_tokens"] < cancellation.TOKENS


def test_cancellation_counts_in_words(lab: Lab) -> None:
    (count, said) = paragraphs(list(BY_NAME["cancellation"].change(lab, "1")))[-1].split(" ")[2:4]
    assert said == ("event." if count == "1" else "events.")


def test_trailers_need_chunks(lab: Lab, shown: Callable[[str], list[Block]]) -> None:
    old, new, neither = (answers(data)[0] for data in wires(shown("trailers")))
    assert not old.chunked
    assert old.body == new.body == neither.body
    assert b"\r\nX-Usage-Total-Tokens: " in wires(shown("trailers"))[1].rpartition(b"\r\n0")[2]
    assert b"X-Usage" not in wires(shown("trailers"))[2]
    events = wires(list(BY_NAME["trailers"].change(lab, "1.1 Accept: text/event-stream")))[0]
    assert answers(events)[0].header("content-type") == "text/event-stream; charset=utf-8"
    with pytest.raises(Mistake, match=r"1\.0 or 1\.1"):
        list(BY_NAME["trailers"].change(lab, "2 TE: trailers"))


def test_survival_the_text_is_the_same(lab: Lab, shown: Callable[[str], list[Block]]) -> None:
    (table,) = tables(shown("survival"))
    whole, killed = table.rows
    assert whole[1] == killed[1] == str(survival.TOKENS)
    assert whole[3:] == killed[3:]
    for typed in ("10", "client 3", "engine", "server 99"):
        with pytest.raises(Mistake, match="expected"):
            list(BY_NAME["survival"].change(lab, typed))
    assert "The same text, to the last letter." in paragraphs(shown("survival"))


def test_forward_agrees_with_the_reference_and_the_server(
    lab: Lab, shown: Callable[[str], list[Block]]
) -> None:
    found, names, difference = forward.compute(lab, forward.PROMPT)
    assert difference < 1e-3
    assert found.logits.shape == (len(names), lab.model.vocab)
    for shares in found.shares:
        assert np.allclose(shares.sum(axis=-1), 1)
    told = next(text for text in paragraphs(shown("forward")) if "likeliest token" in text)
    served, computed = re.findall(r"0\.\d{4}", told)
    assert abs(float(served) - float(computed)) < 0.002
    with pytest.raises(Mistake, match="1 to 40 tokens"):
        forward.compute(lab, "fox " * 60)


@pytest.mark.parametrize("name", ["length", "events", "prefill", "cache", "pipelining"])
@pytest.mark.parametrize("typed", ["", "many", "-1", "99999"])
def test_a_number_out_of_range_is_named(lab: Lab, name: str, typed: str) -> None:
    with pytest.raises(Mistake, match=f"expected a number from [01] to .* found '{typed}'"):
        list(BY_NAME[name].change(lab, typed))


# Bytes to lines


@given(st.binary(max_size=200))
def test_any_bytes_are_lines(data: bytes) -> None:
    assert b"".join(line.data for line in annotate(data)) == data
    assert unescape("".join(escape(data))) == data


@given(st.data())
def test_a_damaged_stream_is_lines_too(data: st.DataObject) -> None:
    event = b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": null}]}\n\n'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    raw = head + b"\r\n" + b"%x\r\n%b\r\n" % (len(event), event) + b"0\r\nA: b\r\n\r\n"
    start = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(start, len(raw)))
    damaged = raw[:start] + data.draw(st.binary(max_size=8)) + raw[end:]
    assert b"".join(line.data for line in annotate(damaged)) == damaged


@pytest.mark.parametrize("size", [b"-1", b"+1", b"0x1", b"1_0", b"", b"g", b"f" * 5000])
def test_what_is_no_chunk_size_has_no_note(size: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw = head + size + b"\r\nab\r\n0\r\n\r\n"
    lines = annotate(raw)
    assert b"".join(line.data for line in lines) == raw
    assert lines[3] == Line(size + b"\r\n", "", "framing")
    assert {line.note for line in lines[4:]} == {""}


def test_lines_say_what_they_are() -> None:
    raw = (
        b"HTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1a\r\n: ping\n"
        b'data: {"error":1}\n\n\r\n'
        b"0\r\nX-A: b\r\n\r\n"
    )
    notes = [line.note for line in annotate(raw)]
    assert notes == [
        "version, status, reason",
        "an empty line ends the head",
        "version, status, reason",
        "what the body is",
        "the length is not known yet",
        "an empty line ends the head",
        "0x1a = 26: so many bytes follow",
        "a comment: a sign of life",
        "an error",
        "an empty line ends the event",
        "ends the chunk",
        "the zero chunk: that was the body",
        "a trailer",
        "the end",
    ]


def test_long_lines_and_many_lines_lose_their_middle(capsys: pytest.CaptureFixture[str]) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(60))
    Screen(plain=True).wire(Wire(head + b"\r\n" + bytes(range(256)) * 2, most=9))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("version, status, reason")
    assert lines[7].split() == ["<", "...", "54", "more", "lines,", "530", "bytes"]
    assert lines[-2].startswith("  < \\x00\\x01")
    assert lines[-2].endswith(" ...")
    assert re.fullmatch(r"    \.\.\. (\\x[0-9a-f]{2}){17,18}", lines[-1])


# The command


def test_lessons_are_listed_with_what_is_done(
    progress: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress.parent.mkdir()
    progress.write_text("request\nchunks\n")
    assert cli.main(["learn", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[len(LESSONS) + 1] == "learn build:"
    lines = lines[: len(LESSONS)]
    assert [" done " in line for line in lines] == [True, True] + [False] * 12
    assert all(lesson.title in line for lesson, line in zip(LESSONS, lines, strict=True))


@pytest.mark.parametrize("number", ["0", "15", "x", "-1", "1.5", "\u0663"])
def test_a_number_without_a_lesson_is_refused(
    number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["learn", "--", number]) == 2
    said = capsys.readouterr().err
    assert f"lesson '{number}': expected a number from 1 to 14" in said
    assert "learn --list" in said


def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["learn", "--list", "--progress", str(tmp_path)]) == 2
    assert f"--progress {tmp_path}: cannot be read" in capsys.readouterr().err


def test_progress_that_cannot_be_kept_stops_nobody(
    lab: Lab,
    seen: Callable[[str], Seen],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(learn, "LESSONS", (replayed(BY_NAME["events"], seen("events")),))
    monkeypatch.setattr(learn, "open_lab", lambda: nullcontext(lab))
    monkeypatch.setattr(builtins, "input", lambda _: "")
    assert cli.main(["learn", "--progress", str(tmp_path / "file" / "lessons")]) == 0
    text = capsys.readouterr().out
    assert "cannot be written" in text
    assert "Done." in text


def test_the_help_lists_the_lessons_and_shows_real_bytes(
    seen: Callable[[str], Seen], capsys: pytest.CaptureFixture[str]
) -> None:
    page = help_page("lessons")
    titles = "".join(f"{n}. {lesson.title}\n" for n, lesson in enumerate(LESSONS, 1))
    assert titles in page
    screen = Screen(plain=True)
    for block in seen("chunks").change:
        if isinstance(block, Wire):
            screen.wire(block)
    assert capsys.readouterr().out in page


def test_at_the_end_of_input_it_stops_and_goes_on_there(
    lab: Lab,
    progress: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(learn, "open_lab", lambda: nullcontext(lab))
    monkeypatch.setattr("sys.stdin", io.StringIO("c\n\n\n\n"))
    assert cli.main(["learn"]) == 0
    done, errors = capsys.readouterr()
    assert errors == ""
    assert "Right." in done
    assert "`streamtok learn 2` goes on here." in done
    assert progress.read_text() == "request\n"
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert cli.main(["learn"]) == 0
    again = capsys.readouterr().out
    assert "Lesson 2 of 14" in again
    assert "Lesson 1 of 14" not in again


def test_lessons_are_written_out_in_the_order_asked_for(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal of ASCII, in this case."""
    output = io.BytesIO()
    monkeypatch.setattr(learn, "open_lab", lambda: nullcontext(lab))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(output, "ascii"))
    assert cli.main(["learn", "--plain", "12", "5"]) == 0
    sys.stdout.flush()
    text = output.getvalue().decode("ascii")
    assert re.findall(r"Lesson (\d+) of 14", text) == ["12", "5"]
    assert "Tried: `Z\\xfcrich" in text
    assert "the zero chunk: that was the body" in text
    assert "(Enter" not in text


def test_ctrl_c_ends_it_in_order(progress: Path) -> None:
    with subprocess.Popen(
        [*STREAMTOK, "learn", "4"],
        env=os.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=0,
    ) as process:
        assert process.stdout is not None
        read_until(process.stdout, lambda seen: "Your answer" in seen)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "`streamtok learn 4` goes on here." in rest
    assert errors == ""
    assert not progress.exists()


def test_the_lab_reports_what_becomes_of_a_connection(lab: Lab) -> None:
    closed = lab.exchange(get("/health", "Connection: close"))
    assert closed.recording.ended == "closed"
    assert closed.answer.complete
    assert closed.at_s(0) <= closed.at_s(len(closed.raw) - 1)
    with pytest.raises(ValueError, match="did not come"):
        closed.at_s(len(closed.raw))
    assert lab.exchange(post("/health", {})).answer.status == 405
