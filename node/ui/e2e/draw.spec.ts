import { readFile } from "node:fs/promises";
import { expect, expectAccessible, expectNoSidewaysScroll, open, order, smoke, state, test, unheard } from "./test";

test("a picture is drawn, opens large, and can be had again", smoke, async ({ page }) => {
  const prompt = unheard("a cat on a blue background");
  await open(page);
  const row = await order(page, { prompt, seed: "7" });
  await expect(state(row)).toHaveText(/^Done on node \d+ in /);
  await row.getByRole("button", { name: `Open “${prompt}” large` }).click();
  const dialog = page.getByRole("dialog");
  const picture = dialog.getByRole("img", { name: prompt });
  await expect(picture).toHaveJSProperty("complete", true);
  expect(await picture.evaluate((image: HTMLImageElement) => image.naturalWidth)).toBeGreaterThan(0);
  await expectAccessible(page);

  await dialog.getByRole("button", { name: "Copy parameters" }).click();
  await expect(dialog.getByText("Copied")).toBeVisible();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toMatch(new RegExp(`^${prompt}\n.*Seed: 7, Size: `));
  await expect(dialog.getByText("Copied")).toBeHidden();
  await dialog.getByRole("button", { name: "Copy picture" }).click();
  await expect(dialog.getByText("Copied")).toBeVisible();

  const download = page.waitForEvent("download");
  await dialog.getByRole("link", { name: "Download" }).click();
  const path = await (await download).path();

  await dialog.getByRole("button", { name: "Same again" }).click();
  await expect(dialog).toBeHidden();
  await expect(page.getByLabel("Prompt", { exact: true })).toBeFocused();
  await expect(page.getByLabel("Seed", { exact: true })).toHaveValue("7");

  // The downloaded file says how it was drawn.
  await page.getByLabel("Prompt", { exact: true }).fill("");
  await page.locator('input[data-for="parameters"]').setInputFiles({
    name: "cat.png", mimeType: "image/png", buffer: await readFile(path),
  });
  await expect(page.getByText("The form has the parameters of cat.png.")).toBeVisible();
  await expect(page.getByLabel("Prompt", { exact: true })).toHaveValue(prompt);
});

test("steps and previews are seen, and a reload loses nothing", smoke, async ({ page }) => {
  const prompt = unheard("steps");
  await open(page);
  let row = await order(page, { prompt, steps: 50, count: 16 });
  await expect(state(row)).toHaveText(/On node \d+, step \d+ of 50, picture \d+ of 16/);
  await expect(row.getByRole("img", { name: `Preview of “${prompt}”` })).toBeVisible();
  await expectAccessible(page);
  await page.reload();
  row = page.locator("li[data-job]", { hasText: prompt });
  await expect(state(row)).toHaveText(/step|Done/);
  await expect(state(row)).toHaveText(/^Done/, { timeout: 60_000 });
  await expect(row.locator(".tile")).toHaveCount(16);
});

test("the keyboard alone draws, and another tab shows the job", async ({ page, context }) => {
  const prompt = unheard("keyboard");
  await open(page);
  await page.getByLabel("Steps", { exact: true }).fill("50");
  await page.getByLabel("Pictures", { exact: true }).fill("16");
  await page.getByLabel("Prompt", { exact: true }).fill(prompt);
  const other = await context.newPage();
  await open(other);
  await page.bringToFront();
  await page.keyboard.press("Control+Enter");
  await expect(page.locator("li[data-job]", { hasText: prompt })).toBeVisible();
  await expect(other.locator("li[data-job]", { hasText: prompt })).toBeVisible();
  await page.locator("li[data-job]", { hasText: prompt }).getByRole("button", { name: "Cancel" }).click();
  await expect(other.locator("li[data-job]", { hasText: prompt }).locator(".job-state")).toHaveText("Cancelled");
});

test("a job is cancelled while it is drawn, and another goes on", async ({ page }) => {
  await open(page);
  const kept = unheard("kept");
  const left = unheard("cancelled");
  const keptRow = await order(page, { prompt: kept, steps: 30, count: 4 });
  const leftRow = await order(page, { prompt: left, steps: 50, count: 16 });
  await expect(state(leftRow)).toHaveText(/step/);
  await leftRow.getByRole("button", { name: "Cancel" }).click();
  await expect(state(leftRow)).toHaveText("Cancelled");
  await expect(state(keptRow)).toHaveText(/^Done/, { timeout: 60_000 });
  await page.getByRole("button", { name: "Clear what ended" }).click();
  await expect(page.getByText("Nothing is being drawn for you.")).toBeVisible();
});

test("every peer shows the same gallery, and finds by prompt", smoke, async ({ page }) => {
  const prompt = unheard("gallery");
  await open(page);
  const row = await order(page, { prompt });
  await expect(state(row)).toHaveText(/^Done/);
  const gallery = page.getByRole("region", { name: "Gallery" });
  const titles = () => gallery.locator(".tile").evaluateAll((tiles) => tiles.map((tile) => tile.getAttribute("title")));
  await page.reload();
  await expect(gallery.locator(".tile").first()).toHaveAttribute("title", prompt);
  const here = await titles();
  await open(page, "", 1);
  await expect(gallery.locator(".tile").first()).toHaveAttribute("title", prompt);
  await expect.poll(titles).toEqual(here);
  await gallery.getByLabel("Search prompts").fill(prompt.toUpperCase());
  await expect(gallery.locator(".tile")).toHaveCount(1);
  await gallery.getByLabel("Search prompts").fill("no such prompt anywhere");
  await expect(gallery.getByText("No prompt matches.")).toBeVisible();
});

test("whoever changes the peer finds the own job there, and follows it", async ({ page }) => {
  const prompt = unheard("changed peer");
  await open(page);
  const row = await order(page, { prompt, steps: 50, count: 16 });
  await expect(state(row)).toHaveText(/step/);
  await open(page, "", 1);
  await page.getByText(/^Others in work: \d+$/).click();
  await page.getByRole("button", { name: `Follow: ${prompt}` }).click();
  await expect(state(row)).toHaveText(/step \d+ of 50/);
  await row.getByRole("button", { name: "Cancel" }).click();
  await expect(state(row)).toHaveText("Cancelled");
});

test("faults of the form are told at their fields, and sent nowhere", async ({ page }) => {
  await open(page);
  await page.getByLabel("Size", { exact: true }).selectOption("custom");
  await page.getByLabel("Width", { exact: true }).fill("1000");
  await page.getByRole("button", { name: "Draw", exact: true }).click();
  await expect(page.getByText("Say what to draw.")).toBeVisible();
  await expect(page.getByText("Width: a multiple of 16 from 16 to 2048, such as 1008.")).toBeVisible();
  await expect(page.getByLabel("Prompt", { exact: true })).toBeFocused();
  await expect(page.getByText("Nothing is being drawn for you.")).toBeVisible();
});

test("a refusal is told with a countdown, and sent again it is the same job", smoke, async ({ page, tolerate }) => {
  tolerate(/status of 503/);
  const keys: (string | undefined)[] = [];
  await page.route("**/api/v1/jobs", async (route) => {
    if (route.request().method() !== "POST") return route.fallback();
    keys.push(route.request().headers()["idempotency-key"]);
    if (keys.length > 1) return route.fallback();
    const body = JSON.stringify({ error: { code: "unavailable", message: "no leader is known" } });
    return route.fulfill({ status: 503, headers: { "retry-after": "2", "x-served-by": "1" }, body });
  });
  const prompt = unheard("refused");
  await open(page);
  await page.getByLabel("Prompt", { exact: true }).fill(prompt);
  await page.getByRole("button", { name: "Draw", exact: true }).click();
  await expect(page.getByText("Not accepted: no leader is known")).toBeVisible();
  await expect(page.getByRole("button", { name: /Try again in \d s/ })).toBeDisabled();
  await page.getByRole("button", { name: "Try again", exact: true }).click();
  await expect(page.locator("li[data-job]", { hasText: prompt }).locator(".job-state")).toHaveText(/^Done/);
  expect(keys[0]).toBeTruthy();
  expect(keys[1]).toBe(keys[0]);
});

test("a job that the cluster has forgotten is told, and the others go on", async ({ page, tolerate }) => {
  tolerate(/status of 404/);
  await page.addInitScript(() => {
    localStorage.setItem("atelier.open", JSON.stringify(["01ARZ3NDEKTSV4RRFFQ69G5FAV"]));
  });
  await open(page);
  await expect(page.getByText("The cluster does not know this job any more.").first()).toBeVisible();
  const row = await order(page, { prompt: unheard("still draws") });
  await expect(state(row)).toHaveText(/^Done/);
});

test.describe("in Chinese", () => {
  test.use({ locale: "zh-CN" });
  test("the page is Chinese, and the choice of a language is remembered", smoke, async ({ page }) => {
    await open(page);
    await expect(page.locator("html")).toHaveAttribute("lang", "zh-CN");
    await page.getByLabel("提示词", { exact: true }).fill(unheard("蓝色背景上的猫"));
    await page.getByRole("button", { name: "绘制", exact: true }).click();
    await expect(page.locator(".job-state").first()).toHaveText(/^完成/);
    await expectAccessible(page);
    await page.getByRole("button", { name: "切换到英文" }).click();
    await page.reload();
    await expect(page.locator("html")).toHaveAttribute("lang", "en");
    await expect(page.getByRole("heading", { name: "Gallery" })).toBeVisible();
  });
});

test.describe("on a phone", () => {
  test.use({ viewport: { width: 360, height: 740 } });
  test("nothing is wider than the screen", async ({ page }) => {
    await open(page);
    const long = `${"averylongwordwithoutanyspace".repeat(8)} ${unheard("phone")}`;
    const row = await order(page, { prompt: long });
    await expectNoSidewaysScroll(page);
    await expect(state(row)).toHaveText(/^Done/);
    await expectNoSidewaysScroll(page);
    await row.locator(".tile").first().click();
    await expectNoSidewaysScroll(page);
    await page.keyboard.press("Escape");
    await open(page, "#/cluster");
    await expect(page.getByRole("heading", { name: "Members" })).toBeVisible();
    await expectNoSidewaysScroll(page);
    await expectAccessible(page);
  });
});

test("the dark scheme has enough contrast", async ({ page }) => {
  await page.emulateMedia({ colorScheme: "dark" });
  await open(page);
  await expect(page.getByRole("heading", { name: "Gallery" })).toBeVisible();
  await expectAccessible(page);
});
