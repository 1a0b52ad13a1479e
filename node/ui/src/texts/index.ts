/** The language of the page: the browser's, until a person chooses; the choice is remembered. */

import { computed, effect } from "@preact/signals";
import { stored } from "../stored";
import { en, type Texts } from "./en";
import { zh } from "./zh";

export type Language = "en" | "zh";
export type { Texts };

const dictionaries: Record<Language, Texts> = { en, zh };

/** The language of a browser's preference. */
export function languageOf(preferred: string): Language {
  return preferred.toLowerCase().startsWith("zh") ? "zh" : "en";
}

export const language = stored<Language>("language", "shared", (raw) =>
  raw === "en" || raw === "zh" ? raw : languageOf(navigator.language),
);

/** The texts to show: `t.value.draw`. */
export const t = computed(() => dictionaries[language.value]);

/** What `Intl` and the `lang` attribute call the language. */
export const locale = computed(() => (language.value === "zh" ? "zh-CN" : "en"));

effect(() => {
  document.documentElement.lang = locale.value;
});
