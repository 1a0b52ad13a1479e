/** Signals that are remembered by the browser. */

import { effect, signal, type Signal } from "@preact/signals";

/**
 * `read` gets whatever is stored, by any version of this page, and has to make sense of it. What is `shared` follows
 * what other tabs write; what is not, two tabs may hold differently, and the last one is remembered.
 */
export function stored<T>(key: string, shared: "shared" | "own", read: (raw: unknown) => T): Signal<T> {
  const name = `atelier.${key}`;
  const load = (text: string | null): T => {
    try {
      return read(text === null ? undefined : JSON.parse(text));
    } catch {
      return read(undefined);
    }
  };
  const value = signal(load(localStorage.getItem(name)));
  let last = JSON.stringify(value.value);
  effect(() => {
    const text = JSON.stringify(value.value);
    if (text === last) return;
    last = text;
    try {
      localStorage.setItem(name, text);
    } catch {
      // A full or forbidden storage costs the memory of it, not the page.
    }
  });
  if (shared === "own") return value;
  addEventListener("storage", (event) => {
    if (event.key !== name) return;
    last = event.newValue ?? "";
    value.value = load(event.newValue);
  });
  return value;
}
