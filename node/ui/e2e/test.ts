/** What every test here does: it fails on an error in the console, or on what the policy refused. */

import { AxeBuilder } from "@axe-core/playwright";
import { expect, test as base, type Locator, type Page } from "@playwright/test";
import { peers } from "./peers";

interface Fixtures {
  complaints: string[];
  /** Expects a part of what the console will say. */
  tolerate: (pattern: RegExp) => void;
}

export const test = base.extend<Fixtures>({
  complaints: [
    async ({ page }, use) => {
      const complaints: string[] = [];
      listen(page, complaints);
      await use(complaints);
      expect(complaints).toEqual([]);
    },
    { auto: true },
  ],
  tolerate: async ({ complaints }, use) => {
    const patterns: RegExp[] = [];
    await use((pattern) => void patterns.push(pattern));
    const left = complaints.filter((text) => !patterns.some((pattern) => pattern.test(text)));
    complaints.splice(0, complaints.length, ...left);
  },
});

export { expect };

/** Marks the few that CI runs: together they take about a minute. */
export const smoke = { tag: "@smoke" };

function listen(page: Page, complaints: string[]): void {
  page.on("pageerror", (error) => complaints.push(`page error: ${error.message}`));
  page.on("console", (message) => {
    // A refusal by the policy is an error of the console, too.
    if (message.type() !== "error" && message.type() !== "warning") return;
    complaints.push(`${message.type()}: ${message.text()} ${message.location().url}`);
  });
}

/** Opens the page at the first peer, or another. */
export async function open(page: Page, hash = "", at = 0): Promise<void> {
  await page.goto(`${peers[at] ?? ""}/${hash}`);
}

export interface Wish {
  prompt: string;
  steps?: number;
  count?: number;
  seed?: string;
}

/** Fills the form and sends it; returns the job's row. */
export async function order(page: Page, { prompt, steps, count, seed }: Wish): Promise<Locator> {
  await page.getByLabel("Prompt", { exact: true }).fill(prompt);
  await page.getByLabel("Steps", { exact: true }).fill(String(steps ?? ""));
  await page.getByLabel("Pictures", { exact: true }).fill(String(count ?? 1));
  await page.getByLabel("Seed", { exact: true }).fill(seed ?? "");
  await page.getByRole("button", { name: "Draw", exact: true }).click();
  const row = page.locator("li[data-job]", { hasText: prompt }).first();
  await expect(row).toBeVisible();
  return row;
}

export const state = (row: Locator) => row.locator(".job-state");

/** A prompt that no other test has, nor an earlier run. */
export function unheard(what: string): string {
  return `${what} ${Date.now().toString(36)}`;
}

export async function expectAccessible(page: Page): Promise<void> {
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" | ")}`)).toEqual([]);
}

export async function expectNoSidewaysScroll(page: Page): Promise<void> {
  const wider = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  expect(wider).toBeLessThanOrEqual(0);
}
