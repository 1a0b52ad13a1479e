import type { Locator } from "@playwright/test";
import { pidsByNode } from "./peers";
import { expect, open, order, state, test, unheard } from "./test";

test("a worker is killed while it draws, and its job ends on another node", async ({ page, context }) => {
  const pids = pidsByNode();
  await open(page);
  const served = page.locator(".served");
  await expect(served).toHaveText(/\d/);
  const own = Number(/\d+/.exec((await served.textContent()) ?? "")?.[0]);
  const watching = await context.newPage();
  await open(watching, "#/cluster");
  await page.bringToFront();
  // As many jobs as there are nodes: one of them is drawn by a node that does not serve this page.
  const rows: Locator[] = [];
  for (let job = 0; job < pids.size; job += 1) {
    rows.push(await order(page, { prompt: unheard(`worker loss ${job}`), steps: 50, count: 8 }));
  }
  const drawnElsewhere = async () => {
    for (const row of rows) {
      const node = Number(/node (\d+), step/.exec((await state(row).textContent()) ?? "")?.[1] ?? 0);
      if (node > 0 && node !== own) return { row, node };
    }
    return null;
  };
  await expect.poll(drawnElsewhere, { timeout: 30_000, intervals: [100] }).not.toBeNull();
  const lost = await drawnElsewhere();
  if (!lost) throw new Error("it ended just now; give the jobs more steps");

  process.kill(pids.get(lost.node) ?? 0, "SIGKILL");
  await watching.bringToFront();
  await expect(watching.getByText(`Node ${lost.node} is not alive`)).toBeVisible();
  await page.bringToFront();
  for (const row of rows) await expect(state(row)).toHaveText(/^Done/, { timeout: 60_000 });
  await expect(lost.row.getByText(new RegExp(`^Nodes: ${lost.node} → \\d`))).toBeVisible();
  await expect(lost.row.locator(".tile")).toHaveCount(8);
});
