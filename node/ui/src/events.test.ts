import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { backoffMs, FOLLOWED_MAX, JobEvents, type Listener } from "./events";
import { job } from "./fixtures";

class FakeSource {
  static readonly CLOSED = 2;
  static opened: FakeSource[] = [];
  readyState = 1;
  onopen: () => void = () => {};
  onerror: () => void = () => {};
  private readonly hears = new Map<string, (event: { data: string; lastEventId: string }) => void>();
  constructor(readonly url: string) {
    FakeSource.opened.push(this);
  }
  addEventListener(name: string, hear: (event: { data: string; lastEventId: string }) => void) {
    this.hears.set(name, hear);
  }
  close() {
    this.readyState = FakeSource.CLOSED;
  }
  say(name: string, data: unknown, lastEventId = "9-1") {
    this.hears.get(name)?.({ data: JSON.stringify(data), lastEventId });
  }
}

const open = () => FakeSource.opened.filter((source) => source.readyState !== FakeSource.CLOSED);
const mocks = () => ({
  told: vi.fn<Listener["told"]>(), connected: vi.fn<Listener["connected"]>(), refused: vi.fn<Listener["refused"]>(async () => {}),
});
let listener: ReturnType<typeof mocks>;

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("EventSource", FakeSource);
  FakeSource.opened = [];
  listener = mocks();
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

it("one stream follows all jobs, and changes with them", () => {
  const events = new JobEvents(listener);
  events.follow(["B", "A"]);
  events.follow(["B", "A", "C"]);
  vi.advanceTimersByTime(100);
  expect(open().map((source) => source.url)).toEqual(["/api/v1/events?jobs=A,B,C&previews=1"]);
  events.follow([]);
  vi.advanceTimersByTime(100);
  expect(open()).toEqual([]);
});

it("no more jobs are followed than a peer takes, the oldest first", () => {
  const ids = Array.from({ length: FOLLOWED_MAX + 9 }, (_, index) => String(1_000 + index));
  new JobEvents(listener).follow([...ids].reverse());
  vi.advanceTimersByTime(100);
  expect(FakeSource.opened[0]?.url).toContain(`jobs=${ids.slice(0, FOLLOWED_MAX).join(",")}&`);
});

it("an event is told with its job and log index", () => {
  new JobEvents(listener).follow(["01J"]);
  vi.advanceTimersByTime(100);
  FakeSource.opened[0]?.say("step", { job: job(), progress: null }, "12-4");
  expect(listener.told).toHaveBeenCalledWith("01J", { job: job(), progress: null }, 12);
});

it("a refused stream is sorted out, then opened again, ever later", async () => {
  new JobEvents(listener).follow(["01J"]);
  vi.advanceTimersByTime(100);
  for (const wait of [1_000, 2_000, 4_000]) {
    const source = FakeSource.opened.at(-1);
    if (!source) throw new Error("no stream");
    source.readyState = FakeSource.CLOSED;
    source.onerror();
    await vi.advanceTimersByTimeAsync(wait - 1);
    expect(open()).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(open()).toHaveLength(1);
  }
  expect(listener.refused).toHaveBeenCalledTimes(3);
  expect(listener.connected).toHaveBeenLastCalledWith(false);
});

it("a broken line is left to the browser", () => {
  new JobEvents(listener).follow(["01J"]);
  vi.advanceTimersByTime(100);
  const source = FakeSource.opened[0];
  if (source) source.readyState = 0;
  source?.onerror();
  vi.advanceTimersByTime(60_000);
  expect(FakeSource.opened).toHaveLength(1);
  expect(listener.refused).not.toHaveBeenCalled();
});

it("a lost part brings a new stream", () => {
  new JobEvents(listener).follow(["01J", "02J"]);
  vi.advanceTimersByTime(100);
  FakeSource.opened[0]?.say("lost", { code: "unavailable" });
  vi.advanceTimersByTime(1_000);
  expect(FakeSource.opened).toHaveLength(2);
  expect(open()).toHaveLength(1);
});

it("waits grow up to a bound", () => {
  expect([1, 2, 3, 4, 5, 99].map(backoffMs)).toEqual([1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
});
