"""The pages of a class, before the server's endpoints: who asks is known by a cookie.

The cookie holds an API key. It is `HttpOnly` and `SameSite=Strict`, so that no other page can use
it. To the endpoints it is given as `Authorization`, as any client's key.
"""

from base64 import b64encode
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from msgspec.structs import replace

from streamtok.errors import RequestError
from streamtok.http.edge.forwarded import Handler
from streamtok.http.request import Request
from streamtok.http.response import Response
from streamtok.teach.build.exercises import EXERCISES
from streamtok.teach.classroom import pages
from streamtok.teach.classroom.roster import Learner, Rejected, Roster
from streamtok.teach.classroom.shelf import Shelf
from streamtok.teach.lessons import LESSONS
from streamtok.teach.lessons.lesson import Mistake, Question

COOKIE = "streamtok-class"
STYLE_HASH = b64encode(sha256(pages.STYLE.encode()).digest()).decode()
HEADERS = (
    ("content-type", "text/html; charset=utf-8"),
    (
        "content-security-policy",
        (
            f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; frame-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
        ),
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cache-control", "no-store"),
)


class Desk:
    """Answers what is below `/class`; everything else is the server's."""

    def __init__(self, roster: Roster, shelf: Shelf) -> None:
        self._roster = roster
        self._shelf = shelf

    def around(self, handle: Handler) -> Handler:
        """Return what answers requests, with the pages of the class before `handle`."""

        async def answer(request: Request) -> Response:
            key = _key(request)
            learner = self._roster.learners.get(key)
            if request.path == "/class" or request.path.startswith("/class/"):
                return await self._answer(request, learner)
            if learner is None or request.header("authorization"):
                return await handle(request)
            learner.requests += request.path.startswith("/v1/") and request.method == "POST"
            headers = (*request.headers, ("authorization", f"Bearer {key}"))
            response = await handle(replace(request, headers=headers))
            return _framed(response) if request.path == "/" else response

        return answer

    async def _answer(self, request: Request, learner: Learner | None) -> Response:
        _, _, *words = request.path.split("/")
        try:
            match (request.method, words):
                case ("POST", ["join"]):
                    return await self._join(request)
                case ("GET", ["teach", key]) if key in self._roster.learners:
                    return _redirect("/class/room", key)
                case _ if learner is None:
                    return _page(pages.door())
                case ("GET", []):
                    return _page(pages.desk("/class/lesson/1"))
                case ("GET", ["room"]) if self._roster.is_teacher(learner):
                    others = [one for one in self._roster.learners.values() if one is not learner]
                    return _page(pages.room_page(others))
                case ("GET", ["lesson", number]):
                    return await self._lesson(int(number), learner)
                case ("GET", ["exercise", number]):
                    learner.place = f"exercise {int(number)}"
                    exercise = EXERCISES[_index(number, len(EXERCISES))]
                    return _page(pages.exercise_page(int(number), exercise, learner))
                case ("POST", ["answer", number, place]):
                    return await self._judge(request, int(number), int(place), learner)
                case ("POST", ["try", number]):
                    return await self._try(request, int(number), learner)
                case ("POST", ["done", number]):
                    learner.done.add(EXERCISES[_index(number, len(EXERCISES))].name)
                    return _redirect(f"/class/exercise/{int(number)}")
        except (ValueError, IndexError):
            pass  # no such number
        except RequestError as error:
            return _page(pages.document("error", pages.mistake_html(error.message)), error.status)
        return _page(pages.document("not found", "<p>There is no such page.</p>"), 404)

    async def _join(self, request: Request) -> Response:
        try:
            key = self._roster.join(await _field(request, "name"))
        except Rejected as problem:
            return _page(pages.door(str(problem)), 409)
        return _redirect("/class", key)

    async def _lesson(self, number: int, learner: Learner) -> Response:
        lesson = LESSONS[_index(number, len(LESSONS))]
        learner.place = f"lesson {number}"
        blocks = await self._shelf.blocks(lesson)
        return _page(pages.lesson_page(number, lesson, blocks, learner))

    async def _judge(self, request: Request, number: int, place: int, learner: Learner) -> Response:
        given = await _field(request, "given")
        blocks = await self._shelf.blocks(LESSONS[_index(number, len(LESSONS))])
        question = blocks[_index(place + 1, len(blocks))]
        if isinstance(question, Question):
            key, right = f"{number}.{place}", question.accepts(given)
            learner.answers[key] = right
            word, why = ("Right.", question.why) if right else ("Not quite.", question.hint)
            kind = "right" if right else "wrong"
            learner.shown[key] = pages.verdict(kind, word, why)
        return _redirect(f"/class/lesson/{number}")

    async def _try(self, request: Request, number: int, learner: Learner) -> Response:
        lesson = LESSONS[_index(number, len(LESSONS))]
        given = await _field(request, "given")
        try:
            shown = pages.blocks_html(await self._shelf.change(lesson, given[:200]))
        except Mistake as mistake:
            shown = pages.mistake_html(str(mistake))
        learner.tried[lesson.name] = shown
        return _redirect(f"/class/lesson/{number}")


def _index(number: int | str, count: int) -> int:
    """Return where the thing of this number is. Raises IndexError."""
    if not 1 <= int(number) <= count:
        raise IndexError(number)
    return int(number) - 1


def _key(request: Request) -> str:
    try:
        morsel = SimpleCookie(request.header("cookie") or "").get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


async def _field(request: Request, name: str) -> str:
    """Return a field of a form. Raises RequestError."""
    body = (await request.complete()).body
    return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True).get(name, [""])[0]


def _page(body: bytes, status: int = 200) -> Response:
    return Response(status, HEADERS, body)


def _redirect(path: str, key: str = "") -> Response:
    cookie = f"{COOKIE}={key}; Path=/; HttpOnly; SameSite=Strict"
    return Response(303, (("location", path), *((("set-cookie", cookie),) if key else ())))


def _framed(response: Response) -> Response:
    """Return the server's page so that the desk may show it beside a lesson."""
    headers = tuple(
        (name, value.replace("frame-ancestors 'none'", "frame-ancestors 'self'"))
        for name, value in response.headers
    )
    return replace(response, headers=headers)
