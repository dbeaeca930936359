"""The page in a real browser, over a real edge and a real cloud with tiny models."""

import http.server
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edge_node import Answer, Assistant
from edge_node.stream import AnswerStream
from kvwire.messages import Found
from tests.edge_node.browser import HOST, Chat, chromium
from tests.edge_node.local_api import Api, serving_api
from tests.edge_node.sharer_server import Part, RunningServer, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow
QUESTION = "Who keeps the spare key?"


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    with chromium() as made:
        yield made


Open = Callable[..., Chat]


@pytest.fixture
def open_page(browser: "Browser", api: Api) -> Iterator[Open]:
    """Opens the page; at the end no script may have failed, and no rule of the page been broken."""
    opened: list[Chat] = []

    def open_it(port: int = api.port, **context: Any) -> Chat:
        opened.append(Chat(browser, f"127.0.0.1:{port}", **context))
        return opened[-1]

    yield open_it
    for chat in opened:
        assert chat.failed_calls() == []
        chat.context.close()


@pytest.fixture
def chat(open_page: Open) -> Chat:
    return open_page()


def held(parts: Iterable[Part]) -> list[Part | float]:
    """A slice that does not come."""
    return [*list(parts)[:1], 60.0]


def test_an_answer_says_where_it_came_from_and_what_crossed(
    chat: Chat, assistant: Assistant, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.service, "positions_left", 22)
    chat.ask(QUESTION, "note-1")
    card = chat.answered()
    assert chat.text(".text").strip() == assistant.ask(QUESTION, document="note-1").text
    assert chat.text(".source").startswith("Fused") and "whole slice" in chat.text(".why")
    card.locator(".wire summary").click()
    account = kept(chat)[0]["answers"][0]["account"]
    assert account["positions"] == 8
    panel = chat.text(".wire")
    for said in (
        "8 positions in 1 run",
        "left of this document today",
        "22 positions",
        f"{account['payload_bytes']:,} bytes",
        "excerpt",
        "raw",
        "first text after",
    ):
        assert said in panel
    assert card.locator(".stage.generate").count() == 1 and card.locator(".stage.cloud_prefill").count() == 1
    assert card.locator("[role=img]").get_attribute("aria-label")
    assert "fused" in panel.lower() and chat.complaints == []


def kept(chat: Chat) -> Any:
    return json.loads(chat.page.evaluate("sessionStorage.getItem('kvwire.turns') ?? '[]'"))


def test_text_comes_in_pieces_and_the_stop_button_ends_it(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def slow(stream: AnswerStream) -> Iterator[str]:
        yield "one "
        go.wait(20)
        yield "two"

    monkeypatch.setattr(AnswerStream, "_run", slow)
    chat.ask(QUESTION, "note-1")
    chat.card.locator(".text", has_text="one").wait_for()
    assert chat.page.is_disabled("#send") and chat.card.get_attribute("aria-busy") == "true"
    chat.page.click("#stop")
    chat.answered()
    go.set()
    assert chat.text(".source") == "Stopped" and "not whole" in chat.text(".why")
    assert not chat.page.is_visible("#stop") and chat.page.is_enabled("#send")


def test_escape_stops_an_answer_and_what_the_cloud_was_asked_for(chat: Chat, server: RunningServer) -> None:
    server.service.tamper = held
    chat.ask(QUESTION, "note-1")
    wait_until(lambda: bool(server.service.requests))
    chat.page.keyboard.press("Escape")
    chat.answered()
    assert chat.text(".source") == "Stopped" and server.service.cancelled.wait(20)


def test_a_cloud_that_goes_gives_no_answer_and_one_that_comes_back_does(
    chat: Chat, server: RunningServer
) -> None:
    server.service.tamper = held
    chat.ask(QUESTION, "note-1")
    wait_until(lambda: bool(server.service.requests))
    server.stop()
    chat.answered()
    server.service.tamper = lambda parts: parts
    server.start(server.port)
    assert chat.text(".source") == "No answer" and chat.text(".text") == ""
    assert "ask again" in chat.text(".error") or "cannot be reached" in chat.text(".error")
    chat.ask(QUESTION)
    chat.answered()
    assert chat.text(".source").startswith("Fused")


def test_an_answer_that_breaks_off_is_crossed_out(chat: Chat, broken_stream: str) -> None:
    chat.ask(QUESTION, "note-1")
    card = chat.answered()
    assert chat.text(".source") == "No answer" and chat.text(".text").strip() == "one"
    assert "line-through" in card.locator(".text").evaluate("e => getComputedStyle(e).textDecoration")
    assert broken_stream not in chat.page.content()


def test_a_document_that_was_removed_meanwhile_is_told_with_what_to_do(
    chat: Chat, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat.ask(QUESTION, "note-1")
    chat.answered()
    monkeypatch.setattr(server.service, "documents", {})
    chat.ask(QUESTION)
    chat.answered()
    assert chat.text(".why") == "NOT_FOUND" and "id is right" in chat.text(".error")


def test_a_wrong_key_is_told_and_a_right_one_answers(
    assistant: Assistant, open_page: Open, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("right\n", encoding="utf-8")
    with serving_api(assistant, keys_file=str(tmp_path / "keys"), documents=("note-1",)) as api:
        chat = open_page(api.port)
        assert chat.page.is_visible("#key")
        chat.page.fill("#key", "wrong")
        chat.ask(QUESTION, "note-1")
        chat.answered()
        assert chat.text(".why") == "invalid_api_key" and "keys of this edge" in chat.text(".error")
        assert chat.page.evaluate("document.activeElement.id") == "key"
        chat.page.fill("#key", "right")
        chat.ask(QUESTION)
        chat.answered()
        assert chat.text(".source").startswith("Fused")
        assert chat.page.locator("#documents option").get_attribute("value") == "note-1"
        assert "right" not in json.dumps(kept(chat)) + chat.page.evaluate("JSON.stringify(localStorage)")


def test_an_abstention_is_said_in_words_of_its_own(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    def abstains(stream: AnswerStream) -> Iterator[str]:
        yield "none"
        stream._answer = Answer("none", 1, "fused", abstained=True, document="note-1", kind="excerpt")

    monkeypatch.setattr(AnswerStream, "_run", abstains)
    chat.ask(QUESTION, "note-1")
    card = chat.answered()
    assert chat.text(".text") == "Not stated in the document." and "abstained" in (
        card.get_attribute("class") or ""
    )


def test_side_by_side_a_guess_looks_like_none_of_the_answers(chat: Chat) -> None:
    chat.page.check("#compare")
    chat.ask(QUESTION, "note-1")
    chat.answered()
    cards = chat.page.locator(".card")
    assert cards.count() == 4
    modes = cards.locator(".source").all_inner_texts()
    assert modes[0] == "A guess, not an answer" and all(mode.startswith("Fused") for mode in modes[1:3])
    assert (
        modes[3].startswith("Relayed")
        and "the answer itself" in cards.nth(3).locator(".wire summary").inner_text()
    )
    classes = [cards.nth(i).get_attribute("class") or "" for i in range(4)]
    assert ["guess" in each for each in classes] == [True, False, False, False]
    assert "the cloud was not asked" in cards.nth(0).inner_text()
    assert "nothing" in cards.nth(0).locator(".wire summary").inner_text()


def test_notes_stay_at_the_edge(chat: Chat, server: RunningServer) -> None:
    chat.page.get_by_text("Notes for the edge alone").click()
    chat.page.fill("#notes", "a private remark")
    chat.ask(QUESTION, "note-1")
    chat.answered()
    sent = [section.text for request in server.service.requests for section in request.sections]
    assert QUESTION in sent and "a private remark" not in sent


def test_what_was_said_is_there_again_until_it_is_forgotten(chat: Chat) -> None:
    chat.ask(QUESTION, "note-1")
    chat.answered()
    before = chat.text(".text")
    chat.page.reload()
    chat.page.wait_for_selector(".card")
    assert chat.text(".text") == before and chat.text(".source").startswith("Fused")
    chat.page.click("#forget")
    assert chat.page.locator(".card").count() == 0 and kept(chat) == []
    chat.page.reload()
    chat.started()
    assert chat.page.locator(".card").count() == 0


def test_the_keyboard_is_enough(chat: Chat) -> None:
    page = chat.page
    assert focused(chat) == "question"
    order = []
    page.evaluate("document.activeElement.blur()")
    page.evaluate("window.getSelection().removeAllRanges()")
    page.locator("h1").click()
    for _ in range(10):
        page.keyboard.press("Tab")
        order.append(focused(chat))
    assert order == [
        "document",
        "kind",
        "SUMMARY",
        "SUMMARY",
        "follow",
        "compare",
        "forget",
        "question",
        "send",
        order[-1],
    ]
    page.focus("#document")
    page.keyboard.type("note-1")
    page.focus("#question")
    page.keyboard.type("Who keeps")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("the spare key?")
    assert page.input_value("#question") == "Who keeps\nthe spare key?"
    page.keyboard.press("Enter")
    chat.answered()
    assert (
        page.locator(".question").inner_text() == "Who keeps\nthe spare key?" and focused(chat) == "question"
    )
    assert page.locator("[role=status]").inner_text().startswith("Fused")


def focused(chat: Chat) -> str:
    return str(chat.page.evaluate("document.activeElement.id || document.activeElement.tagName"))


def test_a_narrow_screen_shows_all_of_it(open_page: Open) -> None:
    chat = open_page(viewport={"width": 360, "height": 640})
    chat.page.check("#compare")
    chat.ask("Who keeps " + "a-word-that-never-ends" * 8 + "?", "note-1")
    chat.answered()
    for summary in chat.page.locator("summary").all():
        summary.click()
    assert chat.page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize(("width", "height"), [(375, 667), (1280, 720)])
def test_an_answer_that_ends_is_not_behind_the_question(open_page: Open, width: int, height: int) -> None:
    chat = open_page(viewport={"width": width, "height": height})
    assert chat.page.is_visible("#begin")
    for _ in range(3):
        chat.ask(QUESTION, "note-1")
        card = chat.answered()
    assert not chat.page.is_visible("#begin")
    chat.page.wait_for_function("scrollY > 0")
    answer, form = card.bounding_box(), chat.page.locator("#ask").bounding_box()
    assert answer is not None and form is not None
    assert answer["y"] + answer["height"] <= form["y"] and form["height"] < height / 4


def test_a_dark_screen_has_a_dark_page(open_page: Open) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme).page
        shades[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert shades == {"light": "rgb(255, 255, 255)", "dark": "rgb(16, 22, 27)"}


@pytest.mark.parametrize(
    ("status", "found", "shown"),
    [
        (200, {"data": []}, "Nothing found."),
        (501, {"error": {"message": "no search", "code": "UNSUPPORTED"}}, None),
        (503, {"error": {"message": "no room", "code": "BUSY"}}, "no room Ask again in a moment."),
    ],
)
def test_documents_are_found_where_the_edge_can_search(
    chat: Chat, status: int, found: Any, shown: str | None
) -> None:
    chat.page.route(
        "**/v1/kvwire/search?q=keys+%26+boats&k=8", lambda route: route.fulfill(status=status, json=found)
    )
    chat.page.get_by_text("Find documents").click()
    chat.page.fill("#search", "keys & boats")
    chat.page.press("#search", "Enter")
    if shown is None:
        chat.page.wait_for_selector("#find", state="hidden")
        return
    chat.page.locator("#found li").first.wait_for()
    assert chat.page.locator("#found").inner_text() == shown


def test_a_passage_that_the_cloud_found_is_asked_about(chat: Chat, server: RunningServer) -> None:
    server.service.finds = (Found("two", 2, 0.7), Found("note-1", 1, 0.25))
    chat.page.get_by_text("Find documents").click()
    chat.page.fill("#search", "keys & boats")
    chat.page.press("#search", "Enter")
    chat.page.locator("#found li").nth(1).wait_for()
    assert chat.page.locator("#found li").all_inner_texts() == ["two#2 (0.70)", "note-1#1 (0.25)"]
    assert [(search.question, search.k) for search in server.service.searches] == [("keys & boats", 8)]
    chat.page.locator("#found button").first.click()
    assert chat.page.input_value("#document") == "two#2" and focused(chat) == "question"
    chat.page.locator("#found button").nth(1).click()
    chat.page.fill("#question", QUESTION)
    chat.page.click("#send")
    chat.answered()
    assert chat.text(".source").startswith("Fused")


ATTACK = """<!doctype html><iframe id="framed" src="http://127.0.0.1:{port}/"></iframe><script>
const body = JSON.stringify({{model: "kvwire/note-1", messages: [{{role: "user", content: "Who?"}}]}});
const at = (host) => `http://${{host}}:{port}/v1/chat/completions`;
const tried = async (host, init) => {{
  try {{
    const reply = await fetch(at(host), {{method: "POST", body, ...init}});
    return reply.type === "opaque" ? "opaque" : await reply.text();
  }} catch {{ return "refused"; }}
}};
const json = {{headers: {{"Content-Type": "application/json"}}}};
Promise.all(["127.0.0.1", "localhost"].flatMap((host) => [tried(host, json), tried(host, {{mode: "no-cors"}})]))
  .then((got) => {{ window.got = got; }});
</script>"""


@pytest.mark.parametrize("host", [HOST, "127.0.0.1"])
def test_a_page_of_another_origin_can_do_nothing(
    browser: "Browser", api: Api, server: RunningServer, host: str
) -> None:
    with serving(ATTACK.format(port=api.port)) as port:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://{host}:{port}/")
        page.wait_for_function("window.got !== undefined")
        assert set(page.evaluate("window.got")) <= {"refused", "opaque"}
        frames = [frame for frame in page.frames if frame != page.main_frame]
        assert not any(frame.query_selector("#question") for frame in frames)
        context.close()
    assert server.service.requests == []


def test_a_name_that_was_made_to_point_here_gets_no_page(browser: "Browser", api: Api) -> None:
    context = browser.new_context()
    reply = context.new_page().goto(f"http://{HOST}:{api.port}/")
    assert reply is not None and reply.status == 400 and "loopback" in reply.text()
    context.close()


@contextmanager
def serving(page: str) -> Iterator[int]:
    """A server of one page; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()
