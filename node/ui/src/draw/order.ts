/** What is typed into the form, and the order that comes of it. Pure. */

import type { Texts } from "../texts/en";
import type { Order } from "../wire";
import {
  COUNT_MAX, GUIDANCE_MAX, nearestSide, NEGATIVE_BYTES_MAX, PRIORITY_DEFAULT, PRIORITY_MAX, PROMPT_BYTES_MAX, SIDE_MAX,
  SIDE_MIN, SIDE_MULTIPLE, STEPS_MAX, STRENGTH_DEFAULT, STRENGTH_MIN, type Parameters,
} from "./parameters";

/** Every field as typed. An empty seed is one by chance, so a seed that is there is a locked one. */
export interface Form extends Required<Parameters> {
  count: string;
  priority: string;
  /** The sides are typed, whether or not they are a preset's. */
  custom: boolean;
}

export const EMPTY: Form = {
  prompt: "", width: "", height: "", steps: "", seed: "", count: "1", priority: String(PRIORITY_DEFAULT), custom: false,
  negative: "", guidance: "", strength: String(STRENGTH_DEFAULT),
};

/** Width and height; the empty one is the model's default. */
export const PRESETS = [
  "", "512x512", "768x768", "1024x1024", "1536x1536", "768x1024", "1024x768", "832x1248", "1248x832", "720x1280",
  "1280x720",
];

const TYPED = [
  "prompt", "width", "height", "steps", "seed", "count", "priority", "negative", "guidance", "strength",
] as const;

/** Reads a form that was remembered, by whatever version of the page. */
export function formFrom(raw: unknown): Form {
  const known: Form = { ...EMPTY };
  if (typeof raw !== "object" || raw === null) return known;
  const typed = raw as Partial<Record<keyof Form, unknown>>;
  for (const name of TYPED) {
    if (typeof typed[name] === "string") known[name] = typed[name];
  }
  known.custom = typed.custom === true;
  return known;
}

/** The sides as a preset's name. */
export function presetOf(sides: { width: string; height: string }): string {
  return sides.width === "" && sides.height === "" ? "" : `${sides.width}x${sides.height}`;
}

/** What is wrong with a field, by its name. */
export type Faults = Partial<Record<keyof Form | "source", string>>;

/** What an order may have beside the fields that it always has. */
export interface Besides {
  /** There is a picture to begin from. */
  source: boolean;
  /** The model heeds a negative prompt and guidance. */
  guidance: boolean;
}

/** Reads the form; with faults it is not to be sent. */
export function orderOf(form: Form, t: Texts, besides: Besides): { order: Order; faults: Faults } {
  const faults: Faults = {};
  const order: Order = { prompt: form.prompt.trim() };
  const long = (text: string, name: string, most: number) => {
    // The bound is of bytes: a Chinese sign has three.
    const bytes = new TextEncoder().encode(text).length;
    return bytes > most ? t.faultPromptLong(name, String(bytes), String(most)) : undefined;
  };
  const fault = order.prompt === "" ? t.faultPrompt : long(order.prompt, t.prompt, PROMPT_BYTES_MAX);
  if (fault) faults.prompt = fault;
  if (form.custom || form.width !== "" || form.height !== "") {
    for (const name of ["width", "height"] as const) {
      const side = whole(form[name]);
      const fits = side !== null && side >= SIDE_MIN && side <= SIDE_MAX && side % SIDE_MULTIPLE === 0;
      if (fits) order[name] = side;
      else faults[name] = t.faultSide(t[name], nearestSide(side ?? 512));
    }
  }
  const ranges = [["steps", 1, STEPS_MAX], ["count", 1, COUNT_MAX], ["priority", 0, PRIORITY_MAX]] as const;
  for (const [name, least, most] of ranges) {
    if (form[name].trim() === "") continue;
    const value = whole(form[name]);
    if (value !== null && value >= least && value <= most) order[name] = value;
    else faults[name] = t.faultRange(t[name], least, most);
  }
  const seed = form.seed.trim();
  if (/^\d{1,20}$/.test(seed)) order.seed = seed;
  else if (seed !== "") faults.seed = t.faultSeed;
  const number = (name: "strength" | "guidance", least: number, most: number) => {
    const value = form[name].trim() === "" ? undefined : Number(form[name]);
    if (value === undefined || (value >= least && value <= most)) return value;
    faults[name] = t.faultNumber(t[name], least, most);
    return undefined;
  };
  if (besides.source) order.strength = number("strength", STRENGTH_MIN, 1) ?? STRENGTH_DEFAULT;
  if (!besides.guidance) return { order, faults };
  const guidance = number("guidance", 0, GUIDANCE_MAX);
  if (guidance !== undefined) order.guidance = guidance;
  const negative = form.negative.trim();
  if (negative !== "") order.negative_prompt = negative;
  const tooLong = long(negative, t.negative, NEGATIVE_BYTES_MAX);
  if (tooLong) faults.negative = tooLong;
  return { order, faults };
}

function whole(text: string): number | null {
  return /^\d+$/.test(text.trim()) ? Number(text) : null;
}

/** The form of an order that was refused, to mend it. */
export function formOf(order: Order): Form {
  const text = (value: number | undefined) => (value === undefined ? "" : String(value));
  const sides = { width: text(order.width), height: text(order.height) };
  return {
    prompt: order.prompt,
    ...sides,
    steps: text(order.steps),
    seed: order.seed ?? "",
    count: text(order.count),
    priority: text(order.priority),
    custom: !PRESETS.includes(presetOf(sides)),
    negative: order.negative_prompt ?? "",
    guidance: text(order.guidance),
    strength: text(order.strength ?? STRENGTH_DEFAULT),
  };
}
