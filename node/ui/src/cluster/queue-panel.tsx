/** How full the queue is, who fills it, and how long the oldest waits. */

import { clusterNow } from "../api";
import { age, count } from "../format";
import { locale, t } from "../texts";
import type { Queue } from "../wire";
import { askPause } from "./acts";
import { Panel, Table } from "./panel";
import { nowMs, queue } from "./state";

export function QueuePanel() {
  const told = queue.seen.value.data;
  const aside = told && (
    <button type="button" class={told.paused ? "main" : ""} onClick={() => askPause(told)}>
      {told.paused ? t.value.resumeQueue : t.value.pauseQueue}
    </button>
  );
  return (
    <Panel id="queue" title={t.value.queueTitle} source={queue} aside={aside}>
      {(told) => (
        <>
          <Counts told={told} />
          <h3>{t.value.byPriority}</h3>
          <Priorities told={told} />
          <h3>{t.value.byTenant}</h3>
          <Tenants told={told} />
        </>
      )}
    </Panel>
  );
}

function Counts({ told }: { told: Queue }) {
  const number = (value: number) => count(value, locale.value);
  const pairs: [string, string][] = [
    [t.value.queueQueued, t.value.queueRoom(number(told.queued), number(told.jobs_max))],
    [t.value.queueDelayed, number(told.delayed)],
    [t.value.queueRunning, number(told.running)],
    [t.value.queueSucceeded, number(told.succeeded)],
    [t.value.queueFailed, number(told.failed)],
    [t.value.queueCancelled, number(told.cancelled)],
  ];
  return (
    <dl class="summary">
      {pairs.map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}
    </dl>
  );
}

function Priorities({ told }: { told: Queue }) {
  const waiting = told.priorities.filter(({ queued }) => queued > 0).sort((a, b) => b.priority - a.priority);
  if (waiting.length === 0) return <p class="empty">{t.value.emptyQueue}</p>;
  // Read so that the ages move on with each look.
  const now = nowMs.value && clusterNow();
  const head = (
    <>
      <th scope="col">{t.value.priority}</th>
      <th scope="col" class="number">{t.value.queueQueued}</th>
      <th scope="col" class="number">{t.value.oldest}</th>
    </>
  );
  return (
    <Table label={t.value.byPriority} head={head}>
      {waiting.map(({ priority, queued, oldest_ms: oldest }) => (
        <tr key={priority}>
          <th scope="row">{priority}</th>
          <td class="number">{count(queued, locale.value)}</td>
          <td class="number">{oldest > 0 ? age(now - oldest) : t.value.none}</td>
        </tr>
      ))}
    </Table>
  );
}

function Tenants({ told }: { told: Queue }) {
  if (told.tenants.length === 0) return <p class="empty">{t.value.noTenants}</p>;
  const head = (
    <>
      <th scope="col">{t.value.tenant}</th>
      <th scope="col" class="number">{t.value.queueQueued}</th>
      <th scope="col" class="number">{t.value.queueRunning}</th>
      <th scope="col" class="number">{t.value.weight}</th>
    </>
  );
  return (
    <Table label={t.value.byTenant} head={head}>
      {told.tenants.map((one) => (
        <tr key={one.tenant}>
          <th scope="row">{one.tenant}</th>
          <td class="number">{count(one.queued, locale.value)}</td>
          <td class="number">{count(one.running, locale.value)}</td>
          <td class="number">{one.weight}</td>
        </tr>
      ))}
    </Table>
  );
}
