import type { Page, Route } from "@playwright/test";
import { expect, expectAccessible, open, order, smoke, test, unheard } from "./test";

/** What a peer might tell: real ones have no such history, and none that refuses on demand. */
const CONTRACT = {
  "/api/v1/config": {
    version: 3,
    settings: [
      { key: "queue.jobs_max", value: 5_000, default: 100_000, least: 1, most: 100_000, unit: "jobs", about: "jobs that may wait", version: 3 },
      { key: "queue.paused", value: false, default: false, least: 0, most: 1, unit: "", about: "no job is given out", version: 0 },
    ],
  },
  "/api/v1/config/history": {
    versions: [
      { version: 3, at_ms: 1_790_000_000_000, who: "10.0.0.7:5123", why: "small disks", changes: [{ key: "queue.jobs_max", before: null, after: 5_000 }] },
    ],
  },
  "/api/v1/trail": {
    records: [{ log_index: 9, act: "drained node 2", who: "10.0.0.7:5123", why: "new fan", at_ms: 1_790_000_000_000 }],
  },
  "/api/v1/findings": {
    node: 1,
    wall_ms: 1_790_000_000_000,
    findings: [
      { check: "disk", level: "warn", found: "4.0 GiB free", fix: "make room" },
      { check: "raft", level: "ok", found: "leads", fix: "" },
    ],
  },
};

async function byContract(page: Page, act: (route: Route) => Promise<void>): Promise<void> {
  for (const [path, body] of Object.entries(CONTRACT)) {
    await page.route(
      (url) => url.pathname === path,
      (route) => (route.request().method() === "GET" ? route.fulfill({ json: body, headers: { "x-served-by": "1" } }) : act(route)),
    );
  }
}

test("members, queue and plots are shown as they are", smoke, async ({ page }) => {
  await open(page, "#/cluster");
  const members = page.getByRole("region", { name: "Members" }).first();
  await expect(members.locator("tbody tr")).not.toHaveCount(0);
  await expect(members.getByText("leads")).toHaveCount(1);
  await expect(page.locator("#queue")).toContainText("Succeeded");
  await expect(page.locator(".uplot canvas")).toHaveCount(2);
  await expectAccessible(page);
});

test("a job that ends is seen in the plots", async ({ page }) => {
  await open(page, "#/cluster");
  await expect(page.locator("#queue")).toContainText("Succeeded");
  // Two looks at least lie before it.
  await page.waitForResponse((response) => response.url().includes("/api/v1/queue"));
  await page.waitForResponse((response) => response.url().includes("/api/v1/queue"));
  await page.getByRole("link", { name: "Draw" }).click();
  await order(page, { prompt: unheard("plotted") });
  await page.getByRole("link", { name: "Cluster" }).click();
  await expect(page.getByRole("img", { name: /From submission to end, seconds: median/ })).toBeVisible();
});

test("the configuration, its history, the event log and findings", async ({ page }) => {
  const patches: unknown[] = [];
  await byContract(page, async (route) => {
    patches.push(route.request().postDataJSON());
    await route.fulfill({ json: { ...CONTRACT["/api/v1/config"], version: 4 }, headers: { "x-served-by": "1" } });
  });
  await open(page, "#/cluster");
  await expect(page.getByText("node 1, disk: 4.0 GiB free")).toBeVisible();
  await expect(page.locator("#trail")).toContainText("drained node 2");
  await expect(page.locator("#history")).toContainText("queue.jobs_max: default → 5000");
  await expect(page.locator("#config tbody tr").first()).toContainText("changed");
  await expectAccessible(page);

  await page.getByRole("button", { name: "Change: queue.jobs_max" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("queue.jobs_max", { exact: true }).fill("7000");
  await dialog.getByLabel("Reason").fill("more disks");
  await expect(dialog.locator("code")).toHaveText(
    'atelier config set queue.jobs_max=7000 --expect-version 3 --reason "more disks"',
  );
  await expectAccessible(page);
  await dialog.getByRole("button", { name: "Confirm" }).click();
  await expect(dialog).toBeHidden();
  expect(patches).toEqual([{ set: { "queue.jobs_max": 7_000 }, expect_version: 3, why: "more disks" }]);
});

test("the last change is taken back, unless another came meanwhile", async ({ page, tolerate }) => {
  tolerate(/status of 409/);
  const patches: unknown[] = [];
  await byContract(page, async (route) => {
    patches.push(route.request().postDataJSON());
    const json = { error: { code: "failed_precondition", message: "version 4 came meanwhile" } };
    await route.fulfill({ status: 409, json, headers: { "x-served-by": "1" } });
  });
  await open(page, "#/cluster");
  await page.getByRole("button", { name: "Take back" }).click();
  const dialog = page.getByRole("dialog");
  await expect(dialog).toContainText("queue.jobs_max: 5000 → default");
  await dialog.getByRole("button", { name: "Confirm" }).click();
  await expect(dialog).toContainText("Refused: version 4 came meanwhile");
  expect(patches).toEqual([{ set: { "queue.jobs_max": null }, expect_version: 3, why: "takes version 3 back" }]);
});

test("a peer of an older version is told as one", async ({ page, tolerate }) => {
  tolerate(/status of 404/);
  for (const path of ["config/history", "trail", "findings"]) {
    await page.route(`**/api/v1/${path}*`, (route) =>
      route.fulfill({ status: 404, json: { error: { code: "not_found", message: "no path" } } }),
    );
  }
  await open(page, "#/cluster");
  await expect(page.locator("#trail")).toContainText("This peer's version does not tell this");
  await expect(page.locator("#history")).toContainText("This peer's version does not tell this");
  await expect(page.getByRole("region", { name: "Members" }).first()).toBeVisible();
});

test("the queue is paused and resumed", async ({ page }) => {
  await open(page, "#/cluster");
  await page.locator("#queue").getByRole("button", { name: "Pause" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Reason").fill("new disks");
  await expect(dialog.locator("code")).toHaveText('atelier queue pause --reason "new disks"');
  await dialog.getByRole("button", { name: "Confirm" }).click();
  await expect(page.getByText("The queue is paused: jobs are accepted, none is given out")).toBeVisible();
  await page.locator("#queue").getByRole("button", { name: "Resume" }).click();
  await dialog.getByRole("button", { name: "Confirm" }).click();
  await expect(page.getByText("The queue is paused: jobs are accepted, none is given out")).toBeHidden();
  await expect(page.locator("#history")).toContainText("queue.paused");
});

test("a member is drained and resumed, and the lead is handed over", async ({ page }) => {
  await open(page, "#/cluster");
  const members = page.locator("#members");
  const follower = members.locator("tbody tr").filter({ hasNotText: "leads" }).last();
  const node = await follower.locator("th").textContent();
  await follower.getByRole("button", { name: /^Drain/ }).click();
  const dialog = page.getByRole("dialog");
  await expect(dialog).toContainText("Votes stay as they are");
  await expect(dialog).toContainText("Slots that draw: ");
  await expect(dialog.locator("code")).toHaveText(`atelier member drain ${node}`);
  await dialog.getByRole("button", { name: "Confirm" }).click();
  const row = members.locator("tbody tr").filter({ has: page.getByRole("rowheader", { name: node ?? "", exact: true }) });
  await expect(row).toContainText("draining");
  await row.getByRole("button", { name: /^Resume/ }).click();
  await dialog.getByRole("button", { name: "Confirm" }).click();
  await expect(row).not.toContainText("draining");
  await row.getByRole("button", { name: /^Make leader/ }).click();
  await expect(dialog.locator("code")).toHaveText(`atelier cluster transfer-leader --to ${node}`);
  await dialog.getByRole("button", { name: "Confirm" }).click();
  await expect(row).toContainText("leads");
});
