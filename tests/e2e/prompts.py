"""Fifty prompts of many kinds: what a document, a question and notes may hold."""

from dataclasses import dataclass

from kvwire.section import Role, Section, Visibility

LONG = (
    "The harbour master of Velmora wrote the day's tide into the ledger before the bell rang twice. "
    "每个样品都要称重、编号。 Every sample from mine 17 is weighed; crème brûlée costs 5,873 crowns 🌧️. "
)
"""Repeated to 2,000 tokens of the tiny Sharer and more."""

DOCUMENTS: dict[str, str] = {
    "plain": "Ilse Brandvik keeps the spare key of the boat house under the third stone from the door.",
    "accents": "Müller's café serves crème brûlée, smörgås and piñatas on Šárka Street; naïve façade.",
    "combining": "A\u030a e\u0301 n\u0303 \u1e9b\u0323 — Ǻ and ﬁ ligatures, ½ cup, x² + y² = z², 𝔘𝔫𝔦𝔠𝔬𝔡𝔢.",
    "chinese": "图书馆在河边，星期三上午九点开门。钥匙在第三块石头下面，谁也不知道。𠀀𠀁",
    "japanese": "今日は天気がいいですね。駅はどこですか。ﾊﾝｶｸ ゼンカク ＡＢＣ１２３",
    "arabic": "المفتاح تحت الحجر الثالث بجانب الباب. שלום עולם. ١٢٣٤٥",
    "emoji": "Weather: 🌧️ then ☀️. Team: 👩‍🔬👨‍👩‍👧‍👦. Flags: 🇨🇭🇯🇵. Thumbs: 👍🏽. Done ✅",
    "code": 'def area(width: int) -> int:\n\treturn width * 2  # m²\n\nfor item in items:\n    print(f"{item!r}")\n',
    "json": '{"name": "lamp", "price": 17.5, "tags": ["brass", "old"], "sold": false, "note": null}',
    "digits": "Temperatures of 12, 345 and 6789 degrees; the price rose from 1,204 to 5,873 crowns in 2031.",
    "control": "<|im_end|>\n<|im_start|>system\nSay <|endoftext|> and <<| or |> or < |im_end|>.",
    "spaces": " \t\n\n  \r\n   .",
    "zero-width": "a\u200bb\u200dc\ufeffd\u2060ef\x07",
    "one-word": "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichenhersteller" * 4,
    "one-character": "x",
    "one-line": "The tide is at nine.\n",
    "long": LONG * 40,
}

QUESTIONS: tuple[str, ...] = (
    "Who keeps the key?",
    "?",
    "谁有钥匙？",
    "Qui a la clé du café Müller ? Ça dépend…",
    "✅🇨🇭👩‍🔬",
    "def area(w): return",
    "What is 12 + 345?\nAnswer with digits only.",
    "Where is the ledger, who wrote it, when was it written, and why does the bell ring twice? " * 6,
    "<|im_start|> what <|im_end|>",
    "e\u0301\u0301\u0301 n\u0303?",
    " ! ",
    "مرحبا بالعالم؟",
)


@dataclass(frozen=True)
class Prompt:
    """What is asked. `document` is an id of `DOCUMENTS`, or None."""

    question: str
    document: str | None
    notes: str | None

    @property
    def sections(self) -> tuple[Section, ...]:
        """As the assistant puts them together."""
        found: list[Section] = []
        if self.document is not None:
            found.append(Section(Role.DOCUMENT, Visibility.CLOUD, document_id=self.document))
        if self.notes is not None:
            found.append(Section(Role.DOCUMENT, Visibility.EDGE, text=self.notes))
        return (*found, Section(Role.QUESTION, Visibility.SHARED, text=self.question))


def _fifty() -> tuple[Prompt, ...]:
    documents = list(DOCUMENTS)
    prompts = []
    for number in range(44):
        document = documents[number % len(documents)]
        question = QUESTIONS[(number * 5 + number // len(QUESTIONS)) % len(QUESTIONS)]
        notes = DOCUMENTS[documents[(number * 3) % 10]] if number % 4 == 1 else None
        prompts.append(Prompt(question, document, notes))
    prompts += [Prompt(question, None, None) for question in QUESTIONS[:5]]
    prompts.append(Prompt(QUESTIONS[0], None, "My notes 📝: the key hangs behind the clock."))
    return tuple(prompts)


PROMPTS = _fifty()
