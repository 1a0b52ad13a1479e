/** How a picture was drawn, as text and back. Pure. The text is what the peer puts into its PNGs. */

import type { Begun, Job, PngInfo } from "../wire";

export const PROMPT_BYTES_MAX = 8_192;
export const NEGATIVE_BYTES_MAX = 4_096;
export const SIDE_MULTIPLE = 16;
export const SIDE_MIN = 16;
export const SIDE_MAX = 2_048;
export const STEPS_MAX = 50;
export const COUNT_MAX = 16;
export const PRIORITY_MAX = 9;
export const PRIORITY_DEFAULT = 5;
export const STRENGTH_MIN = 0.001;
export const STRENGTH_DEFAULT = 0.6;
export const GUIDANCE_MAX = 30;

/** What a form can be filled with; an empty text leaves it to the model or to chance. */
export interface Parameters {
  prompt: string;
  width: string;
  height: string;
  steps: string;
  seed: string;
  negative: string;
  guidance: string;
  /** Left out where nothing is said of it: what stands in the form stays. */
  strength?: string;
}

/** The side next to what is asked for that can be drawn. */
export function nearestSide(side: number): number {
  const rounded = Math.round(side / SIDE_MULTIPLE) * SIDE_MULTIPLE;
  return Math.min(Math.max(rounded, SIDE_MIN), SIDE_MAX);
}

/** Reads what a PNG says, by whichever tool. What cannot be drawn here is brought into range. */
export function fromPng(png: PngInfo): Parameters | null {
  const { parameters } = png;
  const { prompt, negative } = promptsOf(parameters["Prompt"] ?? "");
  if (prompt === "") return null;
  const size = /^(\d+)x(\d+)$/.exec(parameters["Size"] ?? "");
  const side = (text: string | undefined) => (text ? String(nearestSide(Number(text))) : "");
  const steps = Number(parameters["Steps"]);
  return {
    prompt,
    width: side(size?.[1]),
    height: side(size?.[2]),
    steps: Number.isInteger(steps) && steps > 0 ? String(Math.min(steps, STEPS_MAX)) : "",
    seed: /^\d+$/.test(parameters["Seed"] ?? "") ? (parameters["Seed"] ?? "") : "",
    negative: parameters["Negative prompt"] ?? negative,
    guidance: within(parameters["CFG scale"], 0, GUIDANCE_MAX),
    ...strengthFrom(within(parameters["Denoising strength"], STRENGTH_MIN, 1)),
  };
}

/** A number in its range as text; none for 0, and for what is no number. */
function within(text: string | undefined, least: number, most: number): string {
  const value = Number(text ?? "");
  return value > 0 ? String(Math.min(Math.max(value, least), most)) : "";
}

function strengthFrom(text: string): { strength?: string } {
  return text === "" ? {} : { strength: text };
}

/** The prompt and the negative one, which other tools write into the same text. */
function promptsOf(text: string): { prompt: string; negative: string } {
  const [prompt = "", negative = ""] = text.split(/(?:^|\n)Negative prompt: /);
  return { prompt: prompt.trim(), negative: negative.trim() };
}

/** What a job began from, wherever its peer writes it. */
export function begunOf(job: Job): Begun {
  return { ...job, ...job.parameters };
}

/** Size 0 is the model's default, which the job does not name. */
export function fromJob(job: Job, index: number): Parameters {
  const text = (value: number) => (value > 0 ? String(value) : "");
  const begun = begunOf(job);
  return {
    prompt: job.prompt,
    width: text(job.width),
    height: text(job.height),
    steps: text(job.steps),
    seed: job.images[index]?.seed ?? job.seed,
    negative: begun.negative_prompt ?? "",
    guidance: text(begun.guidance ?? 0),
    ...strengthFrom(text(begun.strength ?? 0)),
  };
}

/** The parameters of a picture as text, in the order of stable-diffusion-webui. */
export function infotext(job: Job, index: number, width: number, height: number): string {
  const { negative_prompt: negative, guidance, strength } = begunOf(job);
  const pairs = [
    ...(job.steps > 0 ? [`Steps: ${job.steps}`] : []),
    "Sampler: Euler",
    `CFG scale: ${guidance ?? 0}`,
    `Seed: ${job.images[index]?.seed ?? job.seed}`,
    ...(width > 0 ? [`Size: ${width}x${height}`] : []),
    "Model: z-image-turbo",
    ...(strength ? [`Denoising strength: ${strength}`] : []),
  ];
  return `${job.prompt}\n${negative ? `Negative prompt: ${negative}\n` : ""}${pairs.join(", ")}`;
}
