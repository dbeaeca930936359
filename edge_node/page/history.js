// Questions and answers of this tab. They go with the tab, and no other page or server gets them.

const KEY = "kvwire.turns";
const MOST = 50;

/** Turns as they were kept: {asked, answers}. */
export function kept() {
  try {
    const turns = JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
    return Array.isArray(turns) ? turns : [];
  } catch {
    return [];
  }
}

export function keep(turn) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify([...kept(), turn].slice(-MOST)));
  } catch {
    // No room, or storage is turned off: the page works without a history.
  }
}

export function forget() {
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // Storage is turned off: nothing was kept.
  }
}
