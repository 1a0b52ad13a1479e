import { defineConfig } from "vitest/config";
import type { Plugin, ProxyOptions } from "vite";

/** The peer that `npm run dev` and `npm run preview` ask. */
const peer = process.env["PEER"] ?? "http://127.0.0.1:7860";

/** What the peer sends with its page, so that the preview refuses what the product would refuse. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; " +
  "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const toPeer: ProxyOptions = { target: peer, changeOrigin: true };
const proxy = { "/api": toPeer, "/sdapi": toPeer, "/v2": toPeer };

/** Scripts and styles are same-origin as it is; `crossorigin` would only ask proxies for headers they lack. */
const plainTags: Plugin = {
  name: "plain-tags",
  transformIndexHtml: (html) => html.replaceAll(" crossorigin", ""),
};

export default defineConfig({
  plugins: [plainTags],
  // A data: URL for a small asset is refused by the policy, but for pictures.
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  server: { proxy },
  preview: { proxy, headers: { "content-security-policy": POLICY } },
  test: { include: ["src/**/*.test.ts"], environment: "node" },
});
