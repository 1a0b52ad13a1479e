import type { Locator, Page } from "@playwright/test";
import { drop, png, sizeOf, takePictures } from "./pictures";
import { expect, expectAccessible, expectNoSidewaysScroll, open, smoke, state, test, unheard } from "./test";

const SKY = png(96, 64, [90, 140, 220]);

const field = (page: Page) => page.getByRole("group", { name: "Begin from a picture" });
const choose = (page: Page, name = "sky.png", buffer = SKY) =>
  page.locator('input[data-for="source"]').setInputFiles({ name, mimeType: "image/png", buffer });

async function draw(page: Page, prompt: string): Promise<Locator> {
  await page.getByLabel("Prompt", { exact: true }).fill(prompt);
  await page.getByRole("button", { name: "Draw", exact: true }).click();
  return page.locator("li", { hasText: prompt }).first();
}

test("a peer that takes no pictures is not offered one", async ({ page }) => {
  await takePictures(page, { image: false });
  await open(page);
  await expect(page.locator(".served")).toHaveText(/\d/);
  await expect(field(page)).toBeHidden();
  await expect(page.getByLabel("Negative prompt")).toBeHidden();
});

test("a picture is chosen, masked, drawn from, and begun from again", smoke, async ({ page }) => {
  const asked = await takePictures(page);
  await open(page);
  await choose(page);
  await expect(field(page)).toContainText("96 × 64");
  await expect(field(page).getByRole("img", { name: "Begins from sky.png" })).toBeVisible();
  await page.getByLabel("Strength", { exact: false }).fill("0.25");
  await expect(field(page)).toContainText("keeps nearly everything");
  await expectAccessible(page);

  await page.getByRole("button", { name: "Paint a mask …" }).click();
  const canvas = page.getByRole("application", { name: "Mask over sky.png" });
  const box = await canvas.boundingBox();
  if (!box) throw new Error("the canvas is not shown");
  await page.mouse.move(box.x + box.width * 0.3, box.y + box.height / 2);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.7, box.y + box.height / 2, { steps: 4 });
  await page.mouse.up();
  const dialog = page.getByRole("dialog");
  await expect(dialog.getByRole("status")).toHaveText(/^\d+ % of the picture is drawn anew, the rest stays\.$/);
  await expectAccessible(page);
  await dialog.getByRole("button", { name: "Done" }).click();

  const prompt = unheard("begun");
  const row = await draw(page, prompt);
  await expect(state(row)).toHaveText(/^Done/);
  expect(asked.uploads.length).toBe(2);
  expect(asked.uploads[0]?.equals(SKY)).toBe(true);
  expect(sizeOf(asked.uploads[1] ?? SKY)).toEqual([96, 64]);
  expect(asked.orders[0]).toMatchObject({ prompt, strength: 0.25 });
  await expect(row.getByRole("img", { name: `What “${prompt}” began from` })).toBeVisible();

  await page.getByRole("button", { name: "Remove the picture" }).click();
  await expect(page.getByRole("button", { name: "Choose a picture …" })).toBeFocused();
  await row.getByRole("button", { name: `Open “${prompt}” large` }).click();
  await expectAccessible(page);
  await dialog.getByRole("button", { name: "Same again" }).click();
  await expect(field(page)).toContainText("with a mask");
  await page.getByRole("button", { name: "Draw", exact: true }).click();
  await expect.poll(() => asked.orders.length).toBe(2);
  expect(asked.orders[1]).toMatchObject({ image: asked.orders[0]?.["image"], mask: asked.orders[0]?.["mask"], strength: 0.25 });
});

test("the mask is black and white, where it was painted", async ({ page }) => {
  const asked = await takePictures(page);
  await open(page);
  await choose(page);
  await page.getByRole("button", { name: "Paint a mask …" }).click();
  const dialog = page.getByRole("dialog");
  const status = dialog.getByRole("status");
  // By the keyboard alone: everything, then a spot in the middle erased.
  await dialog.getByRole("button", { name: "Paint everything" }).press("Enter");
  await expect(status).toHaveText("Everything is painted: the whole picture is drawn anew.");
  await dialog.getByRole("button", { name: "Erase" }).press("Enter");
  await page.getByRole("application").press("Space");
  await expect(status).toHaveText(/^9\d % of the picture/);
  await dialog.getByRole("button", { name: "Invert" }).press("Enter");
  await expect(status).toHaveText(/^[1-9] % of the picture/);
  await dialog.getByRole("button", { name: "Undo" }).press("Enter");
  await expect(status).toHaveText(/^9\d % of the picture/);
  await page.keyboard.press("Escape");
  await expect(page.getByRole("button", { name: "Change the mask …" })).toBeFocused();
  await state(await draw(page, unheard("masked"))).waitFor();
  const mask = (asked.uploads[1] ?? SKY).toString("base64");
  const seen = await page.evaluate(async (base64) => {
    const image = new Image();
    image.src = `data:image/png;base64,${base64}`;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context?.drawImage(image, 0, 0);
    const all = [...(context?.getImageData(0, 0, canvas.width, canvas.height).data ?? [])];
    const at = (x: number, y: number) => all.slice((y * canvas.width + x) * 4, (y * canvas.width + x) * 4 + 3);
    return { values: [...new Set(all)].sort(), middle: at(48, 32), corner: at(1, 1) };
  }, mask);
  expect(seen).toEqual({ values: [0, 255], middle: [0, 0, 0], corner: [255, 255, 255] });
});

test("a mask that is cleared is none", async ({ page }) => {
  const asked = await takePictures(page);
  await open(page);
  await choose(page);
  await page.getByRole("button", { name: "Paint a mask …" }).click();
  const dialog = page.getByRole("dialog");
  await page.getByRole("application").press("Shift+ArrowLeft");
  await expect(dialog.getByRole("status")).toHaveText(/^\d+ % of the picture/);
  await dialog.getByRole("button", { name: "Clear" }).click();
  await dialog.getByRole("button", { name: "Done" }).click();
  await state(await draw(page, unheard("unmasked"))).waitFor();
  expect(asked.uploads.length).toBe(1);
  expect(asked.orders[0]).not.toHaveProperty("mask");
});

test("a refused picture is told in words, and tried again nothing is lost", async ({ page, tolerate }) => {
  tolerate(/status of 503/);
  const asked = await takePictures(page);
  asked.refuse = (route) => {
    const json = { error: { code: "unavailable", message: "no room for pictures" } };
    return route.fulfill({ status: 503, json, headers: { "retry-after": "1", "x-served-by": "1" } });
  };
  await open(page);
  await choose(page);
  const prompt = unheard("refused picture");
  const row = await draw(page, prompt);
  await expect(row).toContainText("The picture was not taken: no room for pictures");
  await expect(page.getByLabel("Prompt", { exact: true })).toHaveValue(prompt);
  await expect(field(page)).toContainText("sky.png");
  await row.getByRole("button", { name: "Try again", exact: true }).click();
  await expect(state(page.locator("li[data-job]", { hasText: prompt }))).toHaveText(/^Done/);
  expect(asked.uploads.length).toBe(2);
});

test("what is no picture is told at the field", async ({ page }) => {
  await takePictures(page);
  await open(page);
  await choose(page, "notes.png", Buffer.from("no picture at all"));
  await expect(field(page)).toContainText("notes.png is no picture that this browser can read.");
  await choose(page);
  await expect(field(page)).toContainText("96 × 64");
  await expect(field(page)).not.toContainText("notes.png");
});

test("a large photo is brought within what can be drawn", async ({ page }) => {
  const asked = await takePictures(page);
  await open(page);
  await choose(page, "wide.png", png(4_096, 1_024, [20, 90, 60]));
  await expect(field(page)).toContainText("2048 × 512");
  await state(await draw(page, unheard("wide"))).waitFor();
  expect(sizeOf(asked.uploads[0] ?? SKY)).toEqual([2_048, 512]);
});

test("a photo that lies on its side is set upright before it is sent", async ({ page }) => {
  const asked = await takePictures(page);
  await open(page);
  const jpeg = await page.evaluate(async () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [64, 32];
    canvas.getContext("2d")?.fillRect(0, 0, 9, 9);
    return canvas.toDataURL("image/jpeg").split(",")[1] ?? "";
  });
  const flat = Buffer.from(jpeg, "base64");
  // The camera was turned by a quarter: Exif with the one entry 0x0112, 6.
  const exif = Buffer.from("ffe1002245786966000049492a0008000000010012010300010000000600000000000000", "hex");
  await choose(page, "photo.jpg", Buffer.concat([flat.subarray(0, 2), exif, flat.subarray(2)]));
  await expect(field(page)).toContainText("32 × 64");
  await state(await draw(page, unheard("photo"))).waitFor();
  expect(asked.uploads[0]?.subarray(0, 3).toString("hex")).toBe("ffd8ff");
  expect(asked.uploads[0]?.includes("Exif")).toBe(false);
});

test("a dropped PNG fills the form as ever, and can be begun from; onto the field it is the other way round", async ({ page }) => {
  await takePictures(page);
  await open(page);
  await expect(field(page)).toBeVisible();
  const drawn = png(32, 32, [200, 40, 40], "a red square\nSteps: 9, Sampler: Euler, CFG scale: 0, Seed: 42, Size: 32x32");
  const prompt = page.getByLabel("Prompt", { exact: true });
  await drop(page.locator(".results"), "drawn.png", drawn);
  await expect(page.getByText("The form has the parameters of drawn.png.")).toBeVisible();
  await expect(prompt).toHaveValue("a red square");
  await expect(page.getByRole("button", { name: "Choose a picture …" })).toBeVisible();
  await page.getByRole("button", { name: "Begin from it" }).click();
  await expect(field(page)).toContainText("drawn.png");

  await prompt.fill("mine");
  await drop(field(page), "other.png", drawn);
  await expect(field(page)).toContainText("other.png");
  await expect(prompt).toHaveValue("mine");
  await page.getByRole("button", { name: "Use its parameters" }).click();
  await expect(prompt).toHaveValue("a red square");
  await expect(field(page)).toContainText("other.png");

  // Without parameters there is only one thing to do with it.
  await drop(page.locator(".results"), "sky.png", SKY);
  await expect(field(page)).toContainText("sky.png");
});

test("a pasted picture is begun from, and survives a reload with its mask", async ({ page }) => {
  await takePictures(page);
  await open(page);
  await expect(field(page)).toBeVisible();
  await page.getByLabel("Prompt", { exact: true }).evaluate((area, base64) => {
    const data = new DataTransfer();
    const content = Uint8Array.from(atob(base64), (sign) => sign.charCodeAt(0));
    data.items.add(new File([content], "image.png", { type: "image/png" }));
    area.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
  }, SKY.toString("base64"));
  await expect(page.getByText("The next picture begins from image.png.")).toBeVisible();
  await page.getByRole("button", { name: "Paint a mask …" }).click();
  await page.getByRole("application").press("Space");
  await page.getByRole("button", { name: "Done" }).click();
  await expect(field(page)).toContainText(/mask: \d+ % is drawn anew/);
  await page.reload();
  await expect(field(page)).toContainText("image.png");
  await expect(field(page)).toContainText(/mask: \d+ % is drawn anew/);
});

test("a picture of the gallery is begun from, at its own size", async ({ page }) => {
  await takePictures(page);
  await open(page);
  await choose(page);
  const prompt = unheard("gallery source");
  const row = await draw(page, prompt);
  await page.getByRole("button", { name: "Remove the picture" }).click();
  await page.getByLabel("Size", { exact: true }).selectOption("768x768");
  await row.getByRole("button", { name: `Open “${prompt}” large` }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Begin from this" }).click();
  await expect(field(page)).toContainText("96 × 64");
  await expect(page.getByLabel("Size", { exact: true })).toHaveValue("");
  await page.getByLabel("Size", { exact: true }).selectOption("768x768");
  await expect(page.getByText("Another shape than the picture's 96 × 64.")).toBeVisible();
});

test("while an upgrade goes on a chosen picture is kept, and no order leaves without it", async ({ page }) => {
  const asked = await takePictures(page);
  await open(page);
  await choose(page);
  await expect(field(page)).toContainText("sky.png");
  asked.takes = { image: false, guidance: false };
  await page.reload();
  await expect(field(page)).toContainText("sky.png");
  await expect(page.locator(".served")).toHaveText(/\d/);
  await page.getByLabel("Prompt", { exact: true }).fill("waits");
  await page.getByRole("button", { name: "Draw", exact: true }).click();
  await expect(field(page)).toContainText("Pictures to begin from are not taken now");
  expect(asked.orders).toEqual([]);
});

test("a model that heeds guidance is given it", async ({ page }) => {
  const asked = await takePictures(page, { guidance: true });
  await open(page);
  await choose(page);
  await page.getByLabel("Negative prompt").fill("blurry");
  await page.getByLabel("Guidance").fill("4.5");
  await expectAccessible(page);
  await state(await draw(page, unheard("guided"))).waitFor();
  expect(asked.orders[0]).toMatchObject({ negative_prompt: "blurry", guidance: 4.5 });
});

test.describe("on a phone", () => {
  test.use({ viewport: { width: 360, height: 740 }, hasTouch: true });
  test("a finger paints, and nothing is wider than the screen", async ({ page }) => {
    await takePictures(page);
    await open(page);
    await choose(page, `${"averylongnamewithoutanyspace".repeat(4)}.png`);
    await expect(field(page)).toContainText("96 × 64");
    await expectNoSidewaysScroll(page);
    await page.getByRole("button", { name: "Paint a mask …" }).tap();
    await page.getByRole("application").tap();
    await expect(page.getByRole("dialog").getByRole("status")).toHaveText(/^\d+ % of the picture/);
    await expectNoSidewaysScroll(page);
    await page.getByRole("button", { name: "Done" }).tap();
    await expect(field(page)).toContainText(/mask: \d+ %/);
    await page.emulateMedia({ colorScheme: "dark" });
    await expectAccessible(page);
  });
});
