// The page: reads the fields, asks, shows, keeps.

import { Card } from "./answer.js";
import * as api from "./api.js";
import { byId, make } from "./dom.js";
import * as history from "./history.js";

const question = byId("question");
const MOST_MESSAGES = 40;
const runs = { kinds: [], stopping: null };

/** The fields as an object of the API; what is empty is left out. */
function asked() {
  const about = byId("document").value.trim();
  const notes = byId("notes").value.trim();
  return {
    question: question.value.trim(),
    ...(about && { document: about }),
    ...(about && byId("kind").value && { kind: byId("kind").value }),
    ...(notes && { notes }),
  };
}

/** The turns before it about the same document, as messages: what the cloud was asked, and no answer that read notes. */
function earlier({ document: id }) {
  if (!id || !byId("follow").checked) return [];
  return history.kept().filter(({ about }) => about.document === id).flatMap(({ about, answers }) => {
    const [answer] = answers.filter(({ account, error, stopped }) => account?.bytes_sent && !error && !stopped);
    if (!answer) return [];
    const said = { role: "user", content: about.question };
    return about.notes || !answer.text ? [said] : [said, { role: "assistant", content: answer.text }];
  }).slice(-MOST_MESSAGES);
}

/** What is asked for, and under which title: one answer, or several to be compared. */
function variants(about, compare) {
  if (!compare) return [{ title: "Answer", more: {} }];
  const alone = { title: "The edge's model alone", more: { kind: null, source: "receiver-only" }, guess: Boolean(about.document) };
  if (!about.document) return [alone, { title: "With the cloud's reading", more: {} }];
  return [
    alone,
    ...runs.kinds.map((kind) => ({ title: `With ${kind === "excerpt" ? "an" : "a"} ${kind}`, more: { kind } })),
    { title: "The cloud's own words, as text", more: { kind: null, source: "relayed" } },
  ];
}

function shown(about, titles) {
  const cards = titles.map(({ title, guess }) => new Card(title, guess));
  const over = about.document ? `about ${about.document}` : "about no document";
  byId("turns").append(
    make(
      "article",
      { "aria-label": `Question: ${about.question}` },
      make("h2", { class: "question", text: about.question }),
      make("p", { class: "soft", text: `${over}${about.notes ? ", with notes of this edge" : ""}` }),
      make("div", { class: cards.length > 1 ? "cards many" : "cards" }, ...cards.map((card) => card.element)),
    ),
  );
  return cards;
}

function say(text) {
  byId("status").textContent = text;
}

function answering(stopping) {
  runs.stopping = stopping;
  byId("stop").hidden = stopping === null;
  byId("send").disabled = stopping !== null;
}

async function send() {
  const about = asked();
  if (runs.stopping !== null || !about.question) return;
  const stopping = new AbortController();
  answering(stopping);
  say("Answering.");
  question.value = "";
  const wanted = variants(about, byId("compare").checked);
  const before = earlier(about);
  const cards = shown(about, wanted);
  cards[0].element.scrollIntoView({ block: "nearest" });
  try {
    const answers = [];
    for (const [i, { more }] of wanted.entries()) {
      answers.push(await answered(cards[i], about, more, before, stopping.signal));
    }
    const lines = cards.map((card, i) => card.end(about, answers[i]));
    cards.at(-1).element.scrollIntoView({ block: "nearest" });
    say(lines.join(" "));
    history.keep({ about, titles: wanted.map(({ title, guess }) => ({ title, guess })), answers });
  } finally {
    answering(null);
  }
}

/** One answer into its card; what came of it, as it is kept. */
async function answered(card, about, more, before, signal) {
  const { question: text, ...options } = { ...about, ...more };
  if (signal.aborted) return { text: "", stopped: true };
  try {
    const piece = (part) => card.add(part);
    const account = await api.ask(text, options.source === "receiver-only" ? [] : before, options, { key: byId("key").value, signal, piece });
    return { text: card.text.textContent, account };
  } catch (error) {
    if (signal.aborted) return { text: card.text.textContent, stopped: true };
    if (!(error instanceof api.ApiError)) throw error;
    if (error.status === 401) askForKey();
    const { message, advice, code } = error;
    return { text: card.text.textContent, error: { message, advice, code } };
  }
}

function askForKey() {
  byId("key-field").hidden = false;
  byId("key").focus();
}

async function find() {
  const text = byId("search").value.trim();
  if (!text) return;
  const list = byId("found");
  try {
    const found = await api.search(text, 8, byId("key").value);
    if (found === null) {
      byId("find").hidden = true;
      byId("document").focus();
      say("This edge cannot search the cloud's documents.");
      return;
    }
    list.replaceChildren(...found.map(pick));
    say(found.length ? `${found.length} found.` : "");
    if (!found.length) list.append(make("li", { text: "Nothing found." }));
  } catch (error) {
    list.replaceChildren(make("li", { class: "error", text: `${error.message} ${error.advice ?? ""}` }));
    if (error.status === 401) askForKey();
  }
}

function pick({ document: id, passage, score }) {
  const named = `${id}#${passage}`; // a long document cannot be read at once
  const button = make("button", { type: "button", class: "quiet", text: `${named} (${Number(score).toFixed(2)})` });
  button.addEventListener("click", () => {
    byId("document").value = named;
    question.focus();
  });
  return make("li", {}, button);
}

async function list() {
  const ids = await api.listed(byId("key").value).catch(() => []);
  byId("documents").replaceChildren(...ids.map((id) => make("option", { value: id })));
}

async function start() {
  try {
    const node = await api.node();
    runs.kinds = node.kinds.filter((kind) => kind !== "shared").sort((a, b) => (b === node.kind) - (a === node.kind));
    const [receiver, sharer] = [node.receiver, node.sharer].map((model) => model.split("@")[0]);
    byId("node").textContent = `${receiver} at this edge reads slices of ${sharer} at ${node.cloud}`;
    for (const kind of runs.kinds) byId("kind").append(make("option", { value: kind, text: kind }));
    byId("kind").options[0].textContent = `as configured (${node.kind})`;
    byId("key-field").hidden = !node.keys;
    if (!node.keys) await list();
  } catch (error) {
    byId("node").textContent = `${error.message} ${error.advice ?? ""}`;
  }
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
byId("settings").addEventListener("submit", (event) => event.preventDefault());
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") runs.stopping?.abort();
});
byId("stop").addEventListener("click", () => {
  runs.stopping?.abort();
  question.focus();
});
byId("search-go").addEventListener("click", find);
byId("search").addEventListener("keydown", (event) => {
  if (event.key === "Enter") {
    event.preventDefault();
    find();
  }
});
byId("key").addEventListener("change", list);
byId("forget").addEventListener("click", () => {
  runs.stopping?.abort();
  history.forget();
  byId("turns").replaceChildren();
  say("Forgotten.");
  question.focus();
});

for (const { about, titles, answers } of history.kept()) {
  shown(about, titles).forEach((card, i) => card.end(about, answers[i]));
}
await start();
