/** Who belongs to the cluster, and how each of them is. */

import { count, model } from "../format";
import { locale, t } from "../texts";
import type { Cluster, Member } from "../wire";
import { askDrain, askTransfer } from "./acts";
import { Panel, Table } from "./panel";
import { lagOf, lastIndex, usualModel } from "./quorum";
import { cluster } from "./state";

/** Entries; a follower in step is behind by what is on its way. */
const LAG_WORTH_MARKING = 1_000;

export function MembersPanel() {
  const told = cluster.seen.value.data;
  const aside = told && told.leader > 0 && (
    <button type="button" onClick={() => askTransfer(told, 0)}>{t.value.transferAny}</button>
  );
  return (
    <Panel id="members" title={t.value.membersTitle} source={cluster} aside={aside}>
      {(told) => (
        <Table label={t.value.membersTitle} head={<Head />}>
          {told.members.map((member) => <Row key={member.node} told={told} member={member} />)}
        </Table>
      )}
    </Panel>
  );
}

function Head() {
  const names = [
    t.value.member, t.value.state, t.value.role, t.value.address, t.value.place, t.value.slots, t.value.model,
    t.value.engine, t.value.features,
  ];
  return (
    <>
      {names.map((name) => <th key={name} scope="col">{name}</th>)}
      <th scope="col" class="number" title={t.value.lagHint}>{t.value.lag}</th>
      <th scope="col">{t.value.actions}</th>
    </>
  );
}

function Row({ told, member }: { told: Cluster; member: Member }) {
  const place = [member.labels["region"], member.labels["zone"]].filter(Boolean).join(" / ");
  const lag = lagOf(member, lastIndex(told));
  const isVoter = member.role === "voter";
  return (
    <tr>
      <th scope="row" class="number">{member.node}</th>
      <td class="fixed">
        <Liveness told={told} member={member} />
        {member.draining && <span class="tag">{t.value.draining}</span>}
      </td>
      <td class="fixed">
        {isVoter ? t.value.voter : t.value.learner}
        {member.leader && <span class="tag strong">{t.value.leads}</span>}
        {member.witness && <span class="tag">{t.value.witness}</span>}
      </td>
      <td class="code">{member.address}</td>
      <td>{place || t.value.none}</td>
      <td class="fixed"><Slots member={member} /></td>
      <td class="fixed"><Model member={member} usual={usualModel(told.members)} /></td>
      <td class="long">{member.engine || t.value.engineNone}</td>
      <td class="number">
        <span class={member.features !== 0 && member.features < told.features ? "bad" : ""}>{member.features || t.value.none}</span>
      </td>
      <td class="number">
        <span class={lag !== null && lag >= LAG_WORTH_MARKING ? "bad" : ""}>
          {lag === null ? t.value.none : count(lag, locale.value)}
        </span>
      </td>
      <td class="acts">
        <button type="button" class="quiet" onClick={() => askDrain(told, member)}
          aria-label={`${member.draining ? t.value.resume : t.value.drain}: ${t.value.nodeName(member.node)}`}>
          {member.draining ? t.value.resume : t.value.drain}
        </button>
        {isVoter && !member.leader && !member.witness && member.alive && told.leader > 0 && (
          <button type="button" class="quiet" onClick={() => askTransfer(told, member.node)}
            aria-label={`${t.value.makeLeader}: ${t.value.nodeName(member.node)}`}>
            {t.value.makeLeader}
          </button>
        )}
      </td>
    </tr>
  );
}

function Liveness({ told, member }: { told: Cluster; member: Member }) {
  // Only a leader knows who is alive.
  if (told.leader === 0) return <span class="dot">{t.value.unknown}</span>;
  if (!member.alive) return <span class="dot fail">{t.value.dead}</span>;
  return <span class={`dot ${member.draining ? "warn" : "ok"}`}>{t.value.alive}</span>;
}

function Slots({ member }: { member: Member }) {
  if (member.slots === 0) return <>{t.value.none}</>;
  return (
    <span title={t.value.slotsOf(member.leases, member.slots)}>
      {member.leases} / {member.slots}
    </span>
  );
}

function Model({ member, usual }: { member: Member; usual: string }) {
  if (member.model === "") return <>{t.value.none}</>;
  const { name, hash } = model(member.model);
  const differs = member.model !== usual;
  return (
    <span title={member.model}>
      {name} <span class="code">{hash}</span>
      {differs && <span class="tag fail">{t.value.differs}</span>}
    </span>
  );
}
