// One answer as a card: where it came from, why, the text, and what crossed the wire for it.

import { make } from "./dom.js";
import { wire } from "./wire.js";

const FROM = {
  fused: "Fused: the edge's model wrote it from a slice",
  relayed: "Relayed: the cloud's model wrote it, and it came as text",
  "receiver-only": "The edge's model alone",
};
const READ = { ...FROM, fused: "Fused: the edge's model read a slice" };
const WHY = {
  REQUESTED: "the cloud was not asked",
  NOTES: "the slice does not hold it, your notes do",
  NOTHING_TO_SHARE: "there is no slice of such a question",
  EMPTY: "what the cloud sent is empty",
  NO_PLAN: "no plan fits the bytes, the time and the cloud's policy",
};

const NOT_STATED = "Not stated in the document.";
const withheld = ({ confidence, least_confidence: least }) =>
  `Withheld: its confidence of ${confidence.toFixed(3)} is below ${least}; least_confidence = 0 in edge.toml shows such answers.`;

/** A card that fills while an answer comes. guessing: it can only be a guess. */
export class Card {
  constructor(title, guessing) {
    this.source = make("span", { class: "source", text: guessing ? "A guess" : "answering …" });
    this.why = make("span", { class: "why" });
    this.text = make("p", { class: "text" });
    this.element = make(
      "section",
      { class: guessing ? "card guess" : "card", "aria-label": title, "aria-busy": "true" },
      make("h3", { text: title }),
      make("p", { class: "from" }, this.source, " ", this.why),
      this.text,
    );
  }

  add(piece) {
    this.text.textContent += piece;
  }

  /** The end. answer: {text, account}, {text, error} or {text, stopped}; gives a line for who cannot see it. */
  end(asked, answer) {
    this.element.removeAttribute("aria-busy");
    if (answer.error) return this.#failed(answer);
    if (answer.stopped) return this.#note("stopped", "Stopped", "you stopped it; the text is not whole", answer.text);
    return this.#done(asked, answer);
  }

  #done(asked, { text, account }) {
    const wanted = account.source === "relayed" && account.reason === "REQUESTED";
    const why = wanted ? "you asked for it: this is what a slice is to be compared with" : [account.reason, WHY[account.reason]].filter(Boolean).join(": ");
    let told;
    if (account.abstained && account.confidence != null) {
      told = this.#note("abstained", READ[account.source], "an answer was there, but it is too unlikely to be right", withheld(account));
    } else if (account.abstained) {
      told = this.#note("abstained", READ[account.source], why || "a slice is a part of the document, so this can be wrong", NOT_STATED);
    } else if (account.guess) {
      told = this.#note("guess", "A guess, not an answer", why, text);
    } else {
      told = this.#note(account.source, FROM[account.source], why || "the whole slice was read", text);
    }
    if (account.cut) this.why.textContent += "; cut at the most tokens";
    this.element.append(wire(asked, text, account));
    return told;
  }

  #failed({ text, error }) {
    this.#note("failed", "No answer", error.code, text);
    if (text) this.text.setAttribute("aria-label", `Not whole: ${text}`);
    const lines = [error.message, error.advice].filter(Boolean);
    const told = make("div", { class: "error" }, ...lines.map((line) => make("p", { text: line })));
    this.element.append(told);
    return `No answer: ${lines.join(" ")}`;
  }

  #note(kind, source, why, text) {
    this.element.classList.remove("guess");
    this.element.classList.add(kind);
    this.source.textContent = source;
    this.why.textContent = why;
    this.text.textContent = text;
    return `${source}: ${text}`;
  }
}
