/**
 * End-to-end tests against peers that run: PEERS names their HTTP addresses, WORKER_PIDS which process is which node.
 *
 * With PREVIEW=1 the built page is served beside each peer, for peers that were built without it.
 */

import { defineConfig } from "@playwright/test";
import { peers, previews } from "./e2e/peers";

const executable = process.env["CHROMIUM"];

export default defineConfig({
  testDir: "e2e",
  timeout: 90_000,
  expect: { timeout: 15_000 },
  // The peers are shared, and one test kills one of them.
  workers: 1,
  fullyParallel: false,
  reporter: [["list"]],
  use: {
    browserName: "chromium",
    launchOptions: executable ? { executablePath: executable } : {},
    permissions: ["clipboard-read", "clipboard-write"],
    locale: "en-GB",
    trace: "retain-on-failure",
  },
  webServer: previews.map((url, index) => ({
    command: `npx vite preview --strictPort --host 127.0.0.1 --port ${new URL(url).port}`,
    url,
    env: { PEER: peers[index] ?? "" },
    reuseExistingServer: false,
  })),
});
