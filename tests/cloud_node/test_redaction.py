"""What is taken out of documents: how much of seeded canaries, and of nothing else."""

import random
import re
from collections import Counter
from collections.abc import Callable

import pytest

from cloud_node.config import CloudConfig, ExportPolicy
from cloud_node.documents import Documents
from cloud_node.redaction import LookedThrough, Redaction, RedactionFailed, is_redacted, redacted
from fuser.bundle.plans import Interval
from fuser.lab.data.load import load
from fuser.lab.data.notes import values
from fuser.lab.interval import wilson
from kvwire.errors import ExportDenied
from tests.cloud_node.conftest import Start

ALL = Redaction(("email", "phone", "iban", "card", "ip"))
EACH = 200


def digits(chance: random.Random, count: int) -> str:
    return "".join(chance.choice("0123456789") for _ in range(count))


def luhn(chance: random.Random) -> str:
    body = chance.choice(("4", "51", "37")) + digits(chance, 13)
    total = sum(sum(divmod(2 * int(d), 10)) if i % 2 == 0 else int(d) for i, d in enumerate(reversed(body)))
    return body + str(-total % 10)


def iban(chance: random.Random) -> str:
    country, body = chance.choice(
        (("DE", digits(chance, 18)), ("NO", digits(chance, 11)), ("GB", "NWBK" + digits(chance, 14)))
    )
    check = 98 - int("".join(str(int(c, 36)) for c in f"{body}{country}00")) % 97
    return f"{country}{check:02d}{body}"


def in_fours(text: str, between: str) -> str:
    return between.join(text[i : i + 4] for i in range(0, len(text), 4))


def canary(kind: str, chance: random.Random) -> str:
    """One in one of the ways that people write it in."""
    if kind == "email":
        name = chance.choice(("anna", "j.doe", "Ilse-B", "o_neil", "x+tag", "Jürgen"))
        host = chance.choice(("example.com", "mail.example.co.uk", "a-b.museum", "xn--p1ai.org"))
        return f"{name}{digits(chance, 2)}@{host}"
    if kind == "phone":
        ways = (
            *("+47 {} {} {}", "0{}/{}{}", "(0{}) {}-{}", "+1-2{}-{}-1{}", "00{}{}{}", "+49 (0) {} {} {}"),
            *("555-2{}-{}1", "(555) 2{}-{}1"),
        )
        return chance.choice(ways).format(digits(chance, 2), digits(chance, 3), digits(chance, 3))
    if kind in ("iban", "card"):
        return in_fours(
            iban(chance) if kind == "iban" else luhn(chance),
            chance.choice(("", " ", "-") if kind == "card" else ("", " ")),
        )
    if chance.random() < 0.5:
        return ".".join(str(chance.randrange(256)) for _ in range(4))
    groups = [f"{chance.randrange(1, 1 << 16):x}" for _ in range(8)]
    return ":".join(groups) if chance.random() < 0.5 else ":".join(groups[:3]) + "::" + groups[7]


def test_seeded_canaries_are_taken_out() -> None:
    chance, found = random.Random(5), Counter[str]()
    for kind in ALL.patterns:
        for _ in range(EACH):
            secret = canary(kind, chance)
            before, after = chance.choice(
                (("Write to ", " today."), ("(", ")"), ("id: ", ", please"), ("", ""), ("see\n", ".\nAnd"))
            )
            text, counts = redacted(ALL, "acme", f"{before}{secret}{after}")
            # A bracket before a phone number goes with it; nothing of the secret may stay.
            whole = {f"{before}[{kind}]{after}", f"{before.removesuffix('(')}[{kind}]{after}"}
            found[kind] += text in whole and counts[kind] == 1
    assert found == dict.fromkeys(ALL.patterns, EACH)
    in_words = "anna at example dot com, four seven one two"
    assert redacted(ALL, "acme", in_words)[0] == in_words, "nobody says that these are found"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Card 4111 1111 1111 1111 12/27.", "Card [card] 12/27."),
        ("4111111111111111 123", "[card] 123"),
        ("Order 77 4111 1111 1111 1111", "Order 77 [card]"),
        ("1 2 3 4 5 6 7 8 9 10 11 4111 1111 1111 1111 9", "1 2 3 4 5 6 7 8 9 10 11 [card] 9"),
        ("77 3782 822463 10005 1", "77 [card] 1"),
        ("BE68 5390 0754 7034 EUR 500", "[iban] EUR 500"),
        ("AT61 1904 3002 3457 3201 BIC ABCD", "[iban] BIC ABCD"),
        ("Room 12 0171 2345678", "Room 12 [phone]"),
        ("24 (415) 555-0132", "24 [phone]"),
        ("+1 415 555 0132x12", "[phone]"),
        ("Tel.0171 2345678- no", "Tel.[phone]- no"),
        ("手机 – 139 5515 0431。", "手机 – [phone]。"),
        ("01.02.20.24.05 from 01.02.2024", "[phone] from 01.02.2024"),
        ("10.0.0.5:443", "[ip]:443"),
        ("ip:10.0.0.5", "ip:[ip]"),
        ("a:b:10.0.0.5", "a:b:[ip]"),
        ("::ffff:10.1.2.3", "[ip]"),
        ("anna@example.com- she", "[email]- she"),
        ("anna@example.xn--p1ai", "[email]"),
    ],
)
def test_what_stands_directly_before_or_behind_a_secret_does_not_hide_it(text: str, left: str) -> None:
    assert redacted(ALL, "acme", text)[0] == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("é +49\u00a0171\u202f2345678", "é [phone]"),
        ("+49\u2011171\u20112345678", "[phone]"),
        ("+49 171–2345678", "[phone]"),
        ("anna\uff20example.com", "[email]"),
        ("\uff14111 1111 1111 1111", "[card]"),
        ("\u0664111 1111 1111 1111 \ufb01", "[card] \ufb01"),
    ],
)
def test_digits_spaces_and_hyphens_of_other_shapes_hide_nothing(text: str, left: str) -> None:
    assert redacted(ALL, "acme", text)[0] == left


def test_in_what_was_redacted_nothing_more_is_found_whatever_stands_side_by_side() -> None:
    chance = random.Random(7)
    pieces = [canary(kind, chance) for kind in ALL.patterns for _ in range(3)]
    pieces += [*" :-.@/x([", "12", "00", " 7", "AB12", "::"]
    for _ in range(2_000):
        text, _ = redacted(ALL, "acme", "".join(chance.choices(pieces, k=chance.randint(1, 7))))
        assert redacted(ALL, "acme", text) == (text, Counter())


def test_a_pattern_that_finds_something_for_ever_is_refused_with_its_text() -> None:
    with pytest.raises(RedactionFailed, match="still more"):
        redacted(Redaction(custom={"mark": r"\](?=z)"}), "acme", "]z")


def test_dates_amounts_versions_and_times_stay() -> None:
    text = (
        "On 2026-11-30 at 12:30:45 version 1.2.3 sold 1,234,567.89 pieces, 4111111111111112 of them by number; "
        "pages 100-200, 10:15, ratio 3:2, a::b, DE00 1234, 30.11.2026, the years 1914-1918 and 1,000,000 more. x@y "
        "1 000 000 000 EUR, 2026-03-04 1200, ½ ² \ufb01; from 09.10.2024 to 01/09/2027 12.30 (05-08-2024), "
        "2025/04/09 05.53, art. 0981.323, serial 0864 427"
    )
    assert redacted(ALL, "acme", text) == (text, Counter())


DRAWN = {"phone": "phone", "chinese phone": "phone", "korean phone": "phone", "mail": "email", "iban": "iban"}
DRAWN |= {"ip": "ip", "network": "ip"}
"""Values of generated notes that are secrets, and the pattern for each."""


def measured(source: str, count: int | None, seed: int) -> dict[str, Interval | float | Counter[str]]:
    """What the patterns take out of texts that none of this was written for.

    docs/privacy.md: `measured("notes:heldout", 2000, 12)`. Addresses of mail are always taken for secrets.
    """
    secrets, maker = dict[str, str](), values._maker

    def recording(name: str) -> Callable[[values.Draw], str]:
        make = maker(name)

        def made(draw: values.Draw) -> str:
            text = make(draw)
            if kind := DRAWN.get(name):
                secrets[text.partition("/")[0] if name == "network" else text] = kind
            return text

        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values, "_maker", recording)
        items = load(source, "document", count, seed, for_training=False, max_document_chars=100_000)
    texts = sorted({item.document for item in items})
    others = Redaction(tuple(kind for kind in ALL.patterns if kind != "email"))
    hit, characters, wrong = 0, list[int](), Counter[str]()
    there, whole = Counter[str](), Counter[str]()
    for text in texts:
        out, bare = redacted(ALL, "acme", text)[0], text
        for secret, kind in secrets.items():
            if secret in text and re.search(rf"(?<![\w.+-]){re.escape(secret)}(?![\w-]|\.\w)", text):
                there[kind] += 1
                whole[kind] += out == redacted(ALL, "acme", text.replace(secret, f"[{kind}]"))[0]
                bare = bare.replace(secret, "…")
        left, found = redacted(others, "acme", bare)
        hit, wrong = hit + bool(found), wrong + found
        characters.append(len(bare) - len(left) + sum(n * len(f"[{kind}]") for kind, n in found.items()))
    told: dict[str, Interval | float | Counter[str]] = {
        f"whole {k}": wilson(whole[k], there[k]) for k in there
    }
    share = sum(characters) / sum(map(len, texts))
    return told | {"texts": wilson(hit, len(texts)), "characters": share, "wrong": wrong, "of": there}


def test_of_held_out_notes_hardly_anything_is_taken_out_that_is_no_secret() -> None:
    found = measured("notes:heldout", 200, 11)
    texts, phones, addresses = found["texts"], found["whole phone"], found["whole ip"]
    assert isinstance(texts, Interval) and isinstance(phones, Interval) and isinstance(addresses, Interval)
    assert texts.point <= 0.03
    assert phones.point >= 0.95 and addresses.point == 1.0


def test_what_was_taken_out_once_stays_so_and_other_tenants_keep_theirs() -> None:
    redaction = Redaction(("email",), {"ticket": "TKT-[0-9]{4}"}, ("acme",))
    text, counts = redacted(redaction, "acme", "a@example.com opened TKT-0815 and TKT-4711")
    assert (text, counts) == ("[email] opened [ticket] and [ticket]", {"email": 1, "ticket": 2})
    assert redacted(redaction, "acme", text) == (text, Counter())
    assert redacted(redaction, "other", "a@example.com")[0] == "a@example.com"


@pytest.mark.parametrize(
    ("custom", "said"),
    [
        ({"x": "("}, "custom.x"),
        ({"x": "a*"}, "everywhere"),
        ({"x": "mail"}, r"matches \[email\]"),
        ({"email": "a"}, "no name"),
        ({"a b": "a"}, "no name"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused_by_name(custom: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Redaction(("email",), custom)


def test_a_pattern_that_never_ends_stores_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_node.redaction._SECONDS", 0.2)
    with pytest.raises(RedactionFailed, match="the pattern slow takes more than"):
        redacted(Redaction((), {"slow": "(x+x+)+y"}), "acme", "x" * 5_000)


def test_the_known_patterns_end_soon_on_hostile_texts() -> None:
    for hostile in (
        "1 " * 50_000,
        "a." * 50_000 + "@",
        "@a." * 30_000,
        ":1" * 50_000,
        "AB12" * 25_000,
        "+" + "(1)" * 30_000,
    ):
        assert redacted(ALL, "acme", hostile)[0]


async def test_a_text_that_was_stored_otherwise_is_not_read(start_local: Start, config: CloudConfig) -> None:
    store = Documents(config.documents)
    store.add("acme", "raw", "Ilse keeps the key. Her address is ilse@example.com.")
    store.add("acme", "clean", "Ilse keeps the key. Her address is [email].")
    store.close()
    cloud = await start_local(export=ExportPolicy(redact=Redaction(("email",))))
    await cloud.share(cloud.request("clean", "Who keeps the key?"))
    with pytest.raises(ExportDenied, match="a document that was stored before"):
        await cloud.share(cloud.request("raw", "Who keeps the key?"))
    assert "ilse@" not in cloud.audit.read_text()


def test_a_text_is_looked_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    def counting(told: Redaction, tenant: str, text: str) -> bool:
        looks.append(f"{tenant}: {text}")
        return is_redacted(told, tenant, text)

    monkeypatch.setattr("cloud_node.redaction.is_redacted", counting)
    looked, told = LookedThrough(), Redaction(("email",), tenants=("acme",))
    for _ in range(2):
        looked.check(told, "acme", "The key is with Ilse.")
        looked.check(told, "other", "ilse@example.com")
        with pytest.raises(ExportDenied):
            looked.check(told, "acme", "ilse@example.com")
    assert sorted(looks) == [
        "acme: The key is with Ilse.",
        *["acme: ilse@example.com"] * 2,
        "other: ilse@example.com",
    ]


async def test_a_text_that_was_stored_otherwise_is_not_found_by_its_words(
    start_local: Start, config: CloudConfig
) -> None:
    store = Documents(config.documents)
    store.add("acme", "raw", "The address of Wendelin is wendelin@example.com.")
    store.add("acme", "clean", "The address of Wendelin is [email].")
    store.close()
    cloud = await start_local(export=ExportPolicy(redact=Redaction(("email",))))
    assert [found.document for found in await cloud.search("Wendelin example")] == ["clean"]
