/**
 * Files that a person chooses, drops or pastes. A PNG may say how it was drawn, and any picture can be one to begin
 * from: dropped onto the page a PNG with parameters fills the form as ever, dropped onto the field it is begun from;
 * the other is offered then.
 */

import { signal } from "@preact/signals";
import { ApiError, pngInfo } from "../api";
import { t } from "../texts";
import { fill, filledBy } from "./form-state";
import { fromPng, type Parameters } from "./parameters";
import { beginFrom } from "./source";
import { takes } from "./takes";

/** What else can be done with the file that came last. */
export interface Offer {
  what: "begin" | "parameters";
  act: () => void;
}

export const offer = signal<Offer | null>(null);

/** A PNG above this is not asked for its parameters unless a person asks: it travels as text. */
const ASKED_BYTES_MAX = 16 << 20;

const isPng = (file: File) => file.type === "image/png" || /\.png$/i.test(file.name);

export function say(words: string, other: Offer | null = null): void {
  filledBy.value = words;
  offer.value = other;
}

function fillFrom(parameters: Parameters, file: File, other: Offer | null): void {
  fill(parameters, t.value.pngRead(file.name));
  offer.value = other;
}

function offerToBegin(file: File): Offer | null {
  return takes.value.image ? { what: "begin", act: () => void receiveSource(file, false) } : null;
}

/** Reads how a picture was drawn, and nothing else. */
export async function readPng(file: File): Promise<void> {
  if (!isPng(file)) return say(t.value.pngNotPng(file.name), offerToBegin(file));
  try {
    const parameters = fromPng(await pngInfo(await dataUrl(file)));
    if (parameters) fillFrom(parameters, file, offerToBegin(file));
    else say(t.value.pngEmpty(file.name), offerToBegin(file));
  } catch (error) {
    const isSilent = error instanceof ApiError && error.refusal === "unreachable";
    say(t.value.pngFailed(isSilent ? t.value.unreachable : String((error as Error).message)));
  }
}

/** Begins from a picture; the parameters that it has are offered. */
export async function receiveSource(file: File, offers = true): Promise<void> {
  say("");
  const name = file.name || t.value.sourcePasted;
  if (!(await beginFrom(file, name))) return;
  say(t.value.sourceTaken(name));
  const parameters = offers ? await parametersOf(file) : null;
  if (!parameters || filledBy.value !== t.value.sourceTaken(name)) return;
  say(t.value.sourceTaken(name), { what: "parameters", act: () => fillFrom(parameters, file, null) });
}

/** What is dropped beside the field: parameters where the picture has some, else a picture to begin from. */
export async function receiveDropped(file: File): Promise<void> {
  if (!takes.value.image) return readPng(file);
  say("");
  const parameters = await parametersOf(file);
  if (parameters) fillFrom(parameters, file, offerToBegin(file));
  else await receiveSource(file, false);
}

async function parametersOf(file: File): Promise<Parameters | null> {
  if (!isPng(file) || file.size > ASKED_BYTES_MAX) return null;
  try {
    return fromPng(await pngInfo(await dataUrl(file)));
  } catch {
    // They were not asked for; the picture itself will do.
    return null;
  }
}

/** The picture of a paste, unless a text is pasted where one is typed. */
export function pastedPicture(data: DataTransfer | null, target: EventTarget | null): File | null {
  const file = [...(data?.files ?? [])].find(({ type }) => type.startsWith("image/"));
  const isTyped = target instanceof HTMLInputElement || target instanceof HTMLTextAreaElement;
  return file && !(isTyped && data?.types.includes("text/plain")) ? file : null;
}

function dataUrl(file: File): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error ?? new Error("unreadable"));
    reader.readAsDataURL(file);
  });
}
