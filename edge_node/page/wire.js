// "What crossed the wire": positions, bytes and seconds of one answer.

import { bytesOf, counted, make, seconds } from "./dom.js";

/** The panel of one account (docs/api.md, `usage.kvwire`). */
export function wire(asked, text, account) {
  const crossed = account.bytes_sent + account.bytes_received;
  const slice = `${counted(account.positions, "position")}, ${counted(account.payload_bytes, "payload byte")}`;
  const said = account.source === "relayed" ? "the answer itself, as text" : crossed ? slice : "nothing";
  const panel = make("details", { class: "wire" }, make("summary", { text: `What crossed the wire: ${said}` }));
  if (crossed) panel.append(sizes(asked, text, account));
  panel.append(facts(account), ...timeLine(account));
  return panel;
}

/** Bars of bytes: the slice beside texts that are known here. */
function sizes(asked, text, account) {
  const rows = [
    ...(account.kind ? [["the slice, as it came", account.payload_bytes]] : []),
    ["the answer's text", bytesOf(text)],
    ["the question's text, which went up", bytesOf(asked.question)],
  ];
  const most = Math.max(1, ...rows.map(([, bytes]) => bytes));
  const list = make("ul", { class: "sizes", "aria-label": "Bytes" });
  for (const [name, bytes] of rows) {
    const bar = make("span", { class: "bar", "aria-hidden": "true" });
    bar.style.width = `${(100 * bytes) / most}%`;
    list.append(make("li", {}, make("span", { text: `${name}: ${counted(bytes, "byte")}` }), bar));
  }
  return list;
}

function planOf(plan) {
  if (!plan) return null;
  const words = Object.entries(plan).filter(([, value]) => value && (!Array.isArray(value) || value.length));
  return words.map(([name, value]) => (value === true ? name : `${name} ${value}`)).join(", ");
}

function facts(account) {
  const rows = [
    ["source", account.source],
    ["reason", account.reason ?? "none"],
    ["kind of slice", account.kind],
    ["plan", planOf(account.plan)],
    ["why this plan", account.plan_reason],
    ["positions", String(account.positions)],
    ["quoted of the document", account.quoted ? `${counted(account.quoted, "position")} in ${counted(account.runs, "run")}` : null],
    ["left of this document today", account.source === "fused" && account.document ? left(account) : null],
    ["earlier turns that were sent", account.turns_sent ? String(account.turns_sent) : null],
    ["messages up and down", `${counted(account.bytes_sent, "byte")}, ${counted(account.bytes_received, "byte")}`],
    ["of the slice arrived", account.kind ? `${Math.round(100 * account.share_arrived)} %` : null],
    ["decoding, meanwhile", account.timings?.decode ? seconds(account.timings.decode) : null],
    ["tokens of the answer", String(account.tokens)],
    ["confidence", account.confidence == null ? null : `${Math.round(100 * account.confidence)} %`],
  ];
  const list = make("dl", {});
  for (const [name, value] of rows) {
    if (value) list.append(make("div", {}, make("dt", { text: name }), make("dd", { text: value })));
  }
  return list;
}

/** What may still leave of the document for this edge, as the cloud told it with the slice. */
function left(account) {
  const bounds = [
    ["position", account.positions_left],
    ["question", account.questions_left],
    ["new position", account.new_positions_left],
  ];
  const told = bounds.filter(([, count]) => count != null).map(([name, count]) => counted(count, name));
  return told.join(", ") || "no bound";
}

/** Seconds by stage, drawn: what the edge did, the slice's way, and what the cloud says of itself. */
function timeLine(account) {
  const spent = account.timings ?? {};
  const total = spent.total;
  if (!total) return [];
  const stages = (...names) => names.map((name) => [name, spent[name] ?? 0]);
  const edge = follow(0, stages("receiver_prefill", "wait", "fuse"));
  const rows = [["edge", [...edge, ...from(total - (spent.generate ?? 0), "generate", spent.generate)]]];
  if (spent.slice) rows.push(["slice", from(0, "slice", spent.slice)]);
  const cloud = follow(0, stages("cloud_queue", "cloud_prefill", "cloud_encode"));
  if (cloud.length) rows.push(["cloud", cloud]);
  const scale = Math.max(...rows.flatMap(([, parts]) => parts.map((part) => part.start + part.length)));
  const told = rows.map(([who, parts]) => `${who}: ${parts.map(named).join(", ")}`).join("; ");
  const chart = make("div", { class: "line", role: "img", "aria-label": `Time line of ${seconds(total)}. ${told}` });
  for (const [who, parts] of rows) {
    const track = make("div", { class: "track" });
    for (const part of parts) {
      const box = make("span", { class: `stage ${part.name}`, title: named(part) });
      box.style.left = `${(100 * part.start) / scale}%`;
      box.style.width = `${(100 * part.length) / scale}%`;
      track.append(box);
    }
    chart.append(make("span", { class: "who", text: who }), track);
  }
  const first = `first text after ${seconds(account.time_to_first_token_s)}, all after ${seconds(total)}`;
  const legend = make("ul", { class: "legend" });
  for (const [, parts] of rows) {
    for (const part of parts) legend.append(make("li", { class: part.name, text: named(part) }));
  }
  const clock = "The cloud's seconds are its own, drawn from the beginning: the clocks are not compared.";
  return [make("p", { class: "soft", text: `Seconds: ${first}.` }), chart, legend, cloud.length ? make("p", { class: "soft", text: clock }) : ""];
}

/** Stages one behind the other; those without time are left out. */
function follow(start, stages) {
  const parts = [];
  for (const [name, length] of stages) {
    parts.push(...from(start, name, length));
    start += length;
  }
  return parts;
}

function from(start, name, length) {
  return length > 0 ? [{ name, start: Math.max(0, start), length }] : [];
}

function named(part) {
  return `${part.name.replaceAll("_", " ")} ${seconds(part.length)}`;
}
