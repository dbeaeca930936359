"""The page with the real pair: what it shows of an answer, an abstention and a guess; and its pictures in docs/.

`KVWIRE_PICTURES=docs KVWIRE_TEST_REAL=1 pytest tests/e2e/test_page_real.py` makes docs/page.png and docs/page-dark.png.
"""

import os
from pathlib import Path

import pytest

from ops.demo.pair import BUNDLE, codec_of
from ops.demo.samples import load_samples
from ops.demo.stage import CLOUD_START_S, EDGE_START_S, Cast, DemoStage
from tests.edge_node.browser import Chat, chromium

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("KVWIRE_TEST_REAL") != "1", reason="a minute; set KVWIRE_TEST_REAL=1"),
]
MOST_BYTES = 150_000


@pytest.mark.timeout(580)
def test_the_page_shows_a_real_answer_and_an_abstention(real_pair: tuple[Path, Path], tmp_path: Path) -> None:
    pictures = Path(os.environ.get("KVWIRE_PICTURES", tmp_path)).resolve()
    cast = Cast(*map(str, real_pair), BUNDLE, codec_of(BUNDLE))
    (tmp_path / "stage").mkdir()
    with chromium() as browser, DemoStage(tmp_path / "stage", cast, load_samples(), record=False) as stage:
        address = stage.edge.address(EDGE_START_S)
        stage.cloud.address(CLOUD_START_S)
        for scheme, name in (("light", "page.png"), ("dark", "page-dark.png")):
            chat = Chat(browser, address, viewport={"width": 860, "height": 1190}, color_scheme=scheme)
            chat.context.set_default_timeout(120_000)
            chat.ask("What is Ilse Brandvik's boat called?", "record-brandvik")
            card = chat.answered()
            assert "Petrel" in chat.text(".text") and chat.text(".source").startswith("Fused")
            card.locator(".wire summary").click()
            chat.ask("What is Ilse Brandvik's shoe size?")
            chat.answered()
            assert chat.text(".text") == "Not stated in the document."
            chat.page.evaluate("window.scrollTo(0, 0)")
            assert len(chat.page.screenshot(path=pictures / name)) < MOST_BYTES
            assert chat.complaints == []
            chat.context.close()
