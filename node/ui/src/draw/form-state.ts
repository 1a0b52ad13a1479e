/** The form as it stands, remembered by the browser. */

import { signal } from "@preact/signals";
import { stored } from "../stored";
import { formFrom, PRESETS, presetOf, type Form } from "./order";
import type { Parameters } from "./parameters";

/** Seeds that chance draws here are below this: what every tool can write. */
const SEEDS = 4_294_967_294;

export const form = stored<Form>("form", "own", formFrom);

/** Said aloud when the form was filled by something else than typing. */
export const filledBy = signal("");
/** Counts fillings, so that the prompt is focused after each. */
export const fillings = signal(0);

export function change(changes: Partial<Form>): void {
  form.value = { ...form.value, ...changes };
}

export function fill(parameters: Parameters, saying: string): void {
  const custom = !PRESETS.includes(presetOf(parameters));
  change({ ...parameters, custom, count: "1" });
  filledBy.value = saying;
  fillings.value += 1;
}

export function seedByChance(): string {
  const words = crypto.getRandomValues(new Uint32Array(1));
  return String((words[0] ?? 0) % SEEDS);
}
