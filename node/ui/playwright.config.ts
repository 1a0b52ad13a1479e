/**
 * End-to-end tests against peers that run, with the page that is part of them: PEERS names their HTTP addresses,
 * WORKER_PIDS which process is which node.
 */

import { defineConfig } from "@playwright/test";

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
});
