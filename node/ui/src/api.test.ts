import { afterEach, expect, it, vi } from "vitest";
import { ApiError, getCluster, getHistory, messageOf, parse, reachable, retryAfter, servedBy, submit } from "./api";

afterEach(() => vi.unstubAllGlobals());

function answers(status: number, body: string, headers: Record<string, string> = {}) {
  const fetch = vi.fn(async () => new Response(body, { status, headers }));
  vi.stubGlobal("fetch", fetch);
  return fetch;
}

async function refusal(call: Promise<unknown>): Promise<ApiError> {
  const error = await call.then(() => null, (error: unknown) => error);
  if (!(error instanceof ApiError)) throw new Error("expected a refusal");
  return error;
}

it("seeds keep every digit, and a prompt that looks like one stays", () => {
  const text = JSON.stringify({ prompt: 'say "seed":12345678901234567890' }).replace("}", ',"seed":18446744073709551615}');
  expect(parse(text)).toEqual({ prompt: 'say "seed":12345678901234567890', seed: "18446744073709551615" });
});

it("a refusal is told in the peer's words with its time to wait", async () => {
  answers(503, '{"error":{"code":"unavailable","message":"no leader is known"}}', { "retry-after": "3", "x-served-by": "2" });
  const error = await refusal(submit({ prompt: "a cat" }, "key"));
  expect([error.refusal, error.message, error.status, error.retryAfterS]).toEqual(["refused", "no leader is known", 503, 3]);
  expect([servedBy.value, reachable.value]).toEqual([2, true]);
});

it("what an older peer does not know is missing, not broken", async () => {
  answers(404, '{"error":{"code":"not_found","message":"no path"}}');
  expect((await refusal(getHistory())).refusal).toBe("missing");
  answers(405, '{"error":{"code":"method_not_allowed","message":"PATCH"}}', { "x-served-by": "1" });
  expect((await refusal(getHistory())).refusal).toBe("missing");
  answers(404, '{"error":{"code":"not_found","message":"no job"}}', { "x-served-by": "1" });
  expect((await refusal(getHistory())).refusal).toBe("refused");
});

it("silence, and a proxy's own page, are a peer that does not answer", async () => {
  vi.stubGlobal("fetch", () => Promise.reject(new TypeError("failed to fetch")));
  expect((await refusal(getCluster())).refusal).toBe("unreachable");
  answers(502, "<html>Bad Gateway</html>");
  expect((await refusal(getCluster())).refusal).toBe("unreachable");
  expect(reachable.value).toBe(false);
});

it("an order carries its key", async () => {
  const fetch = answers(202, '{"id":"01J"}');
  await submit({ prompt: "a cat", seed: "7" }, "8e03");
  const [path, options] = fetch.mock.calls[0] as unknown as [string, RequestInit];
  expect([path, options.method, options.body]).toEqual(["/api/v1/jobs", "POST", '{"prompt":"a cat","seed":"7"}']);
  expect(options.headers).toMatchObject({ "idempotency-key": "8e03", "content-type": "application/json" });
});

it("refusals of each dialect, and times to wait", () => {
  expect(messageOf({ detail: [{ msg: "image: expected a PNG" }] }, 422)).toBe("image: expected a PNG");
  expect(messageOf({ detail: "not so" }, 500)).toBe("not so");
  expect(messageOf(null, 500)).toBe("HTTP 500");
  expect([retryAfter("2"), retryAfter("0"), retryAfter(null), retryAfter("Wed, 21 Oct 2026")]).toEqual([2, 0, null, null]);
});
