"""`learn --class`: names, pages, answers, and who is where."""

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from streamtok.http.request import Request
from streamtok.http.response import Response
from streamtok.teach.build.exercises import EXERCISES
from streamtok.teach.classroom import app as classroom
from streamtok.teach.classroom.app import ClassApp
from streamtok.teach.classroom.desk import COOKIE, Desk
from streamtok.teach.classroom.roster import Roster
from streamtok.teach.classroom.shelf import Shelf
from streamtok.teach.config import ClassConfig
from streamtok.teach.lessons import LESSONS
from streamtok.teach.lessons.lesson import Question, Table, Wire

BLOCKS = [
    "A `<b>` paragraph.",
    Wire(b"GET / HTTP/1.1\r\n\r\n", sent=True),
    Table(("a", "b"), (("1", "<2>"),)),
    Question("How many?", "2", "because <so>", "count", ("1", "2")),
]


class Room:
    """A desk without sockets; what it does not answer itself is in `passed`."""

    def __init__(self, folder: Path) -> None:
        self.keys = folder / "keys"
        self.keys.write_text("")
        self.reloads = 0
        shelf = Shelf()
        shelf._blocks = {lesson.name: BLOCKS for lesson in LESSONS}
        self.passed: list[Request] = []
        desk = Desk(Roster(self.keys, "sk-teacher", self.reload), shelf)
        self.handle = desk.around(self.server)

    def reload(self) -> None:
        self.reloads += 1

    async def server(self, request: Request) -> Response:
        self.passed.append(request)
        return Response(200, (("content-security-policy", "x; frame-ancestors 'none'"),), b"page")

    def ask(self, method: str, path: str, key: str = "", body: str = "") -> Response:
        headers = (("cookie", f"a=b; {COOKIE}={key}"),) if key else ()
        request = Request(method, path, headers, body.encode(), "1.1", "peer")
        return asyncio.run(self.handle(request))

    def join(self, name: str) -> str:
        answer = self.ask("POST", "/class/join", body=f"name={name}")
        cookie = dict(answer.headers)["set-cookie"]
        assert cookie.endswith("; Path=/; HttpOnly; SameSite=Strict")
        return re.match(rf"{COOKIE}=([^;]+);", cookie)[1]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def text(answer: Response) -> str:
    assert isinstance(answer.body, bytes)
    return answer.body.decode()


def test_a_name_gets_a_key_and_is_taken_then(room: Room) -> None:
    assert "Come in" in text(room.ask("GET", "/class"))
    assert "Come in" in text(room.ask("GET", "/class/lesson/1"))
    key = room.join("Ana")
    assert room.reloads == 1
    assert room.keys.read_text().startswith("Ana:")
    assert key not in room.keys.read_text()
    assert "/class/lesson/1" in text(room.ask("GET", "/class", key))
    for name, said in (
        ("Ana", "Ana already"),
        ("a%20b", "letters"),
        ("", "letters"),
        ("teacher", ""),
    ):
        refused = room.ask("POST", "/class/join", body=f"name={name}")
        assert refused.status == 409
        assert said in text(refused)


def test_the_servers_endpoints_get_the_key(room: Room) -> None:
    key = room.join("Ana")
    room.ask("POST", "/v1/completions", key)
    assert room.passed[-1].header("authorization") == f"Bearer {key}"
    page = room.ask("GET", "/", key)
    assert dict(page.headers)["content-security-policy"] == "x; frame-ancestors 'self'"
    room.ask("POST", "/v1/completions", "sk-unknown")
    assert room.passed[-1].header("authorization") is None
    assert "frame-ancestors 'none'" in str(room.ask("GET", "/").headers)


@pytest.mark.parametrize("number", range(1, len(LESSONS) + 1))
def test_a_lesson_is_shown_without_a_script(room: Room, number: int) -> None:
    shown = text(room.ask("GET", f"/class/lesson/{number}", room.join("Ana")))
    assert "<code>&lt;b&gt;</code> paragraph" in shown
    assert "method, target, version" in shown
    assert "<td>&lt;2&gt;" in shown
    assert "<script" not in shown


def test_answers_are_judged_and_the_teacher_sees_who_is_where(room: Room) -> None:
    ana, ben = room.join("Ana"), room.join("Ben")
    assert room.ask("POST", "/class/answer/3/3", ana, "given=1").status == 303
    assert "Not quite.</b> count" in text(room.ask("GET", "/class/lesson/3", ana))
    room.ask("POST", "/class/answer/3/3", ana, "given=2")
    shown = text(room.ask("GET", "/class/lesson/3", ana))
    assert "Right.</b> because &lt;so&gt;" in shown
    assert "/class/answer/3/3" not in shown
    room.ask("GET", "/class/exercise/2", ben)
    room.ask("POST", "/class/done/2", ben)
    assert "Done." in text(room.ask("GET", "/class/exercise/2", ben))
    room.ask("POST", "/v1/completions", ben)
    seen = text(room.ask("GET", "/class/room", "sk-teacher"))
    assert "<td>Ana<td>lesson 3<td>1 of 1<td>0<td>0 of 6<td>0" in seen
    assert "<td>Ben<td>exercise 2<td>0 of 0<td>0<td>1 of 6<td>1" in seen
    assert "2 in the room" in seen
    assert room.ask("GET", "/class/room", ana).status == 404
    assert dict(room.ask("GET", "/class/teach/sk-teacher").headers)["location"] == "/class/room"


@pytest.mark.parametrize(
    "path",
    ["lesson/0", "lesson/15", "lesson/x", "exercise/7", "nothing", "lesson/1/2", "teach/wrong"],
)
def test_what_is_not_there_is_not_found(room: Room, path: str) -> None:
    assert room.ask("GET", f"/class/{path}", room.join("Ana")).status == 404
    for number in (1, len(EXERCISES)):
        assert room.ask("GET", f"/class/exercise/{number}", room.join(f"B{number}")).status == 200


async def test_a_class_runs_and_the_ledger_has_names(
    tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classroom, "lan", lambda: "127.0.0.1")
    running = ClassApp(ClassConfig(model=str(tiny_model), host="127.0.0.1", port=0))
    url = await running.start()
    try:
        said = capsys.readouterr().out
        async with httpx.AsyncClient(base_url=url, follow_redirects=True) as ana:
            page = await ana.post("/class/join", data={"name": "Ana"})
            assert "iframe" in page.text
            asked: dict[str, Any] = {"prompt": "a", "max_tokens": 3, "ignore_eos": True}
            answer = await ana.post("/v1/completions", json=asked)
            assert answer.status_code == 200
            usage = (await ana.get("/v1/usage?group_by=key")).json()
            assert [row["group"] for row in usage["data"]] == ["Ana"]
        async with httpx.AsyncClient(follow_redirects=True) as teacher:
            page = await teacher.get(re.search(r"http\S+/class/teach/\S+", said)[0])
            assert "<td>Ana<td>came in" in page.text
            assert (await teacher.get(f"{url}/v1/completions")).status_code == 405
    finally:
        await running.stop()


def test_an_address_and_a_code_for_the_room() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\.\d+", classroom.lan())
    pytest.importorskip("segno")
    code = classroom.qr("http://192.0.2.7:8000/class").splitlines()
    assert len({len(line) for line in code}) == 1
    assert set("".join(code)) == set("\u2588\u2580\u2584 ")
