/** What a person can do to the cluster: each act with its effect, its command line and its call. */

import { signal } from "@preact/signals";
import * as api from "../api";
import { count } from "../format";
import { locale, t } from "../texts";
import type { Cluster, Config, ConfigVersion, Member, Queue, Setting, SettingValue } from "../wire";
import * as cli from "./cli";
import { drained, quorumOf } from "./quorum";
import { config, queue } from "./state";

export interface Act {
  title: string;
  effects: string[];
  /** Effects that one may not want. */
  warnings: string[];
  /** Whether the call takes a reason. */
  takesReason: boolean;
  /** What the reason says until a person says otherwise. */
  reason: string;
  /** Of a setting: what is chosen here; null is its default. */
  setting?: Setting;
  cli: (why: string, chosen: SettingValue | null) => string;
  run: (why: string, chosen: SettingValue | null) => Promise<void>;
}

/** The act that a person is asked to confirm. */
export const asked = signal<Act | null>(null);

const plain = { effects: [], warnings: [], takesReason: true, reason: "" };

function votes(members: Member[]): string {
  const { alive, voters, needed, margin } = quorumOf(members);
  return t.value.effectQuorum(alive, voters, needed, margin);
}

export function askPause(told: Queue): void {
  const paused = !told.paused;
  asked.value = {
    ...plain,
    title: paused ? t.value.confirmPause : t.value.confirmResume,
    effects: [paused ? t.value.effectPause : t.value.effectResume(count(told.queued, locale.value))],
    cli: (why) => cli.pauseQueue(paused, why),
    run: async (why) => queue.set(await api.pauseQueue(paused, why)),
  };
}

export function askDrain(told: Cluster, member: Member): void {
  const { node } = member;
  const drains = !member.draining;
  const slots = drained(told.members, node);
  const effects = drains
    ? [
        t.value.effectDrain(node),
        ...(member.leader ? [t.value.effectDrainLeader] : []),
        t.value.effectSlots(slots.before, slots.after),
        votes(told.members),
      ]
    : [t.value.effectResumeMember(node), votes(told.members)];
  asked.value = {
    ...plain,
    title: drains ? t.value.confirmDrain(node) : t.value.confirmResumeMember(node),
    effects,
    warnings: drains && slots.after === 0 ? [t.value.effectNoSlots] : [],
    cli: (why) => cli.drainMember(node, drains, why),
    run: async (why) => void (await api.drainMember(node, drains, why)),
  };
}

/** 0: to whoever has come furthest. */
export function askTransfer(told: Cluster, to: number): void {
  const whom = to > 0 ? t.value.nodeName(to) : t.value.furthest;
  asked.value = {
    ...plain,
    title: t.value.confirmTransfer(whom),
    effects: [t.value.effectTransfer(told.leader, whom), votes(told.members)],
    takesReason: false,
    cli: () => cli.transferLeader(to),
    run: async () => void (await api.transferLeader(to)),
  };
}

export function askSetting(told: Config, setting: Setting): void {
  const set = (chosen: SettingValue | null) => ({ [setting.key]: chosen });
  asked.value = {
    ...plain,
    title: t.value.confirmSetting(setting.key),
    setting,
    cli: (why, chosen) => cli.setConfig(set(chosen), told.version, why),
    run: async (why, chosen) => config.set(await api.setConfig(set(chosen), told.version, why)),
  };
}

export function askUndo(told: Config, last: ConfigVersion): void {
  const set = Object.fromEntries(last.changes.map(({ key, before }) => [key, before]));
  asked.value = {
    ...plain,
    title: t.value.confirmUndo(last.version),
    effects: last.changes.map(({ key, before, after }) => `${key}: ${word(after)} → ${word(before)}`),
    reason: t.value.undoWhy(last.version),
    cli: (why) => cli.undoConfig(told.version, why),
    run: async (why) => config.set(await api.setConfig(set, told.version, why)),
  };
}

/** A value as the command line writes it. */
export function word(value: SettingValue | null): string {
  return value === null ? "default" : String(value);
}
