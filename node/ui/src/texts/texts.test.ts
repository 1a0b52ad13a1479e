import { expect, it } from "vitest";
import { en } from "./en";
import { zh } from "./zh";

/** Without a Chinese word: the other language's name, signs, numbers, and words of the command line; what may be empty. */
const NO_WORDS = ["languageSwitch", "none", "on", "off", "queueRoom", "line", "comma"];

it("every Chinese text is Chinese", () => {
  const numbers = [1, 2, 3, 4];
  for (const [key, text] of Object.entries(zh)) {
    if (NO_WORDS.includes(key)) continue;
    const said = typeof text === "function" ? String((text as (...all: unknown[]) => string)(...numbers)) : text;
    expect(said, key).toMatch(/\p{Script=Han}/u);
  }
});

it("both take the same parameters", () => {
  for (const key of Object.keys(en) as (keyof typeof en)[]) expect(typeof zh[key], key).toBe(typeof en[key]);
});
