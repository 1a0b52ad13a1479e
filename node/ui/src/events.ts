/**
 * One stream of events for all of the page's open jobs: browsers open few connections to a host.
 *
 * The browser reconnects by itself where a line breaks. It gives up where the peer refuses, which it does for a job
 * that it does not know; then whoever listens sorts out which, and a new stream is opened, ever later.
 */

import { eventsUrl, parse } from "./api";
import { EVENT_NAMES, indexOf, type Told } from "./draw/tracked";

/** Jobs that a peer tells in one stream; later ones follow when earlier ones have ended. */
export const FOLLOWED_MAX = 64;
/** Changes of what is followed within this time make one stream. */
const SETTLE_MS = 60;
const RETRY_MS_BASE = 1_000;
const RETRY_MS_MAX = 10_000;

export interface Listener {
  told(id: string, told: Told, index: number): void;
  /** The line stands, or does not. */
  connected(is: boolean): void;
  /** The peer refused these; those that are not known any more have to go. */
  refused(ids: string[]): Promise<void>;
}

/** The time to wait before the stream is opened for the nth time in a row. */
export function backoffMs(failures: number): number {
  return Math.min(RETRY_MS_BASE * 2 ** Math.max(0, failures - 1), RETRY_MS_MAX);
}

export class JobEvents {
  private source: EventSource | null = null;
  private ids: string[] = [];
  private following = "";
  private timer: ReturnType<typeof setTimeout> | undefined;
  private failures = 0;

  constructor(private readonly listener: Listener) {}

  /** Follows these and no others. Ids rise with time, so the oldest come first. */
  follow(ids: string[]): void {
    this.ids = [...ids].sort().slice(0, FOLLOWED_MAX);
    const following = this.ids.join(",");
    if (following === this.following) return;
    this.following = following;
    this.failures = 0;
    this.reopen(SETTLE_MS);
  }

  private reopen(afterMs: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), afterMs);
  }

  private open(): void {
    this.source?.close();
    this.source = null;
    const ids = this.ids;
    if (ids.length === 0) return this.listener.connected(true);
    const source = new EventSource(eventsUrl(ids));
    this.source = source;
    source.onopen = () => {
      this.failures = 0;
      this.listener.connected(true);
    };
    for (const name of EVENT_NAMES) {
      source.addEventListener(name, (event) => {
        const told = parse<Told>(event.data);
        this.listener.told(told.job.id, told, indexOf(event.lastEventId));
      });
    }
    // One job's part of the stream ended without its job; only a new stream brings it back.
    source.addEventListener("lost", () => this.again());
    source.onerror = () => {
      this.listener.connected(false);
      if (source.readyState === EventSource.CLOSED && source === this.source) void this.refused(ids);
    };
  }

  private async refused(ids: string[]): Promise<void> {
    await this.listener.refused(ids);
    this.again();
  }

  private again(): void {
    this.failures += 1;
    this.reopen(backoffMs(this.failures));
  }
}
