// Calls the local API of the edge that serves this page.

const DO = {
  invalid_api_key: "Put one of the keys of this edge into the field above and ask again.",
  NOT_FOUND: "See that the id is right, and that the document was added for this edge's tenant.",
  ACCESS_DENIED: "Another kind of slice may be allowed; who runs the cloud sets what may leave it.",
  NO_PLAN: "Another kind of slice may fit.",
  RELAY_DISABLED: "It is the cloud's policy that no text leaves it; slices may.",
  BUSY: "Ask again in a moment.",
  EDGE_GONE: "Start it with `kvwire edge --config edge.toml` and ask again.",
};

/** An error that a person can do something about. `account`: what is known of an answer that was not given. */
export class ApiError extends Error {
  constructor(error, status) {
    super(error?.message ?? `the edge answered ${status}`);
    this.code = error?.code ?? String(status);
    this.account = error?.kvwire ?? null;
    this.status = status;
  }

  /** What to do, where the message does not say it. */
  get advice() {
    return DO[this.code] ?? (this.status === 503 ? DO.BUSY : "");
  }
}

function gone() {
  return new ApiError({ code: "EDGE_GONE", message: "This edge does not answer." }, 0);
}

async function call(path, { key = "", body = null, signal = null } = {}) {
  const headers = { ...(key && { Authorization: `Bearer ${key}` }), ...(body && { "Content-Type": "application/json" }) };
  let reply;
  try {
    const sent = body && JSON.stringify(body);
    reply = await fetch(path, { method: body ? "POST" : "GET", headers, body: sent, signal, cache: "no-store" });
  } catch (error) {
    throw signal?.aborted ? error : gone();
  }
  if (reply.ok) return reply;
  const told = await reply.json().catch(() => null);
  throw new ApiError(told?.error, reply.status);
}

export async function node() {
  return (await call("/healthz")).json();
}

/** Ids of documents that this edge was told to list. */
export async function listed(key) {
  const { data } = await (await call("/v1/models", { key })).json();
  return data.map((model) => model.id.split("/").slice(1).join("/")).filter(Boolean);
}

/** Documents of the cloud that a text is about: {document, passage, score}; null where nothing can be searched. */
export async function search(text, most, key) {
  try {
    const query = new URLSearchParams({ q: text, k: String(most) });
    return (await (await call(`/v1/kvwire/search?${query}`, { key })).json()).data;
  } catch (error) {
    if (error instanceof ApiError && [404, 501].includes(error.status)) return null;
    throw error;
  }
}

/** Ask; `earlier` are the messages before, `piece` gets the text as it comes. Gives the account of the answer: `usage.kvwire`. */
export async function ask(question, earlier, kvwire, { key, signal, piece }) {
  const body = {
    model: "kvwire",
    messages: [...earlier, { role: "user", content: question }],
    stream: true,
    stream_options: { include_usage: true },
    kvwire,
  };
  const reply = await call("/v1/chat/completions", { key, body, signal });
  let account = null;
  try {
    for await (const event of events(reply.body)) {
      if (event.error) throw new ApiError(event.error, event.error.type === "server_error" ? 503 : 400);
      const text = event.choices?.[0]?.delta?.content;
      if (text) piece(text);
      account = event.usage?.kvwire ?? event.kvwire ?? account;
    }
  } catch (error) {
    throw error instanceof ApiError || signal.aborted ? error : gone();
  }
  if (account === null) throw gone();
  return account;
}

/** The JSON of server-sent events. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (held + value).split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const data = part.startsWith("data: ") ? part.slice(6) : "";
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
  }
}
