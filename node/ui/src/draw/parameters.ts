/** How a picture was drawn, as text and back. Pure. The text is what the peer puts into its PNGs. */

import type { Job, PngInfo } from "../wire";

export const PROMPT_BYTES_MAX = 8_192;
export const SIDE_MULTIPLE = 16;
export const SIDE_MIN = 16;
export const SIDE_MAX = 2_048;
export const STEPS_MAX = 50;
export const COUNT_MAX = 16;
export const PRIORITY_MAX = 9;
export const PRIORITY_DEFAULT = 5;

/** What a form can be filled with; an empty text leaves it to the model or to chance. */
export interface Parameters {
  prompt: string;
  width: string;
  height: string;
  steps: string;
  seed: string;
}

/** The side next to what is asked for that can be drawn. */
export function nearestSide(side: number): number {
  const rounded = Math.round(side / SIDE_MULTIPLE) * SIDE_MULTIPLE;
  return Math.min(Math.max(rounded, SIDE_MIN), SIDE_MAX);
}

/** Reads what a PNG says, by whichever tool. What cannot be drawn here is brought into range. */
export function fromPng(png: PngInfo): Parameters | null {
  const { parameters } = png;
  const prompt = promptOf(parameters["Prompt"] ?? "");
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
  };
}

/** Without the negative prompt, which other tools write into the same text. */
function promptOf(text: string): string {
  return (text.split(/(?:^|\n)Negative prompt: /)[0] ?? "").trim();
}

/** Size 0 is the model's default, which the job does not name. */
export function fromJob(job: Job, index: number): Parameters {
  const text = (value: number) => (value > 0 ? String(value) : "");
  return {
    prompt: job.prompt,
    width: text(job.width),
    height: text(job.height),
    steps: text(job.steps),
    seed: job.images[index]?.seed ?? job.seed,
  };
}

/** The parameters of a picture as text, in the order of stable-diffusion-webui. */
export function infotext(job: Job, index: number, width: number, height: number): string {
  const pairs = [
    ...(job.steps > 0 ? [`Steps: ${job.steps}`] : []),
    "Sampler: Euler",
    "CFG scale: 0",
    `Seed: ${job.images[index]?.seed ?? job.seed}`,
    ...(width > 0 ? [`Size: ${width}x${height}`] : []),
    "Model: z-image-turbo",
  ];
  return `${job.prompt}\n${pairs.join(", ")}`;
}
