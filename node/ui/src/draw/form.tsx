/**
 * The form of an order. It has what the model takes: a negative prompt not where it was distilled, as Z-Image-Turbo
 * was, and a picture to begin from not while some peer does not know it yet.
 */

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { t } from "../texts";
import { Icon } from "../parts/icon";
import { change, filledBy, fillings, form, seedByChance } from "./form-state";
import { draw, rows } from "./jobs";
import { orderOf, PRESETS, presetOf, type Faults, type Form } from "./order";
import {
  COUNT_MAX, GUIDANCE_MAX, PRIORITY_DEFAULT, PRIORITY_MAX, SIDE_MAX, SIDE_MIN, SIDE_MULTIPLE, STEPS_MAX,
} from "./parameters";
import { offer, readPng } from "./received";
import { SourceField } from "./source-field";
import { settled, source, type Source } from "./source";
import { takes, takesKnown } from "./takes";

const CUSTOM = "custom";

export function OrderForm() {
  const [faults, setFaults] = useState<Faults>({});
  const prompt = useRef<HTMLTextAreaElement>(null);
  const filled = fillings.value;
  useEffect(() => {
    if (filled > 0) prompt.current?.focus();
  }, [filled]);

  const submit = async () => {
    // A picture that was just chosen, and the last stroke of a mask, are part of it.
    await settled();
    const hasSource = source.value !== null;
    const read = orderOf(form.value, t.value, { source: hasSource, guidance: takes.value.guidance });
    // Left out it would be another picture than was asked for.
    if (hasSource && takesKnown.value && !takes.value.image) read.faults.source = t.value.sourceNotNow;
    setFaults(read.faults);
    filledBy.value = "";
    offer.value = null;
    const first = Object.keys(read.faults)[0];
    if (first) document.getElementById(first)?.focus();
    else await draw(read.order, source.value);
  };

  return (
    <form
      class="order"
      noValidate
      aria-label={t.value.formTitle}
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      <Field name="prompt" label={t.value.prompt} fault={faults.prompt}>
        <textarea
          id="prompt"
          ref={prompt}
          rows={5}
          value={form.value.prompt}
          title={t.value.promptHint}
          aria-invalid={faults.prompt !== undefined}
          aria-describedby="prompt-fault"
          onInput={(event) => change({ prompt: event.currentTarget.value })}
          onKeyDown={(event) => {
            if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
            event.preventDefault();
            event.currentTarget.form?.requestSubmit();
          }}
        />
      </Field>
      {takes.value.guidance && <GuidanceFields faults={faults} />}
      {(takes.value.image || source.value !== null) && <SourceField fault={source.value ? faults.source : undefined} />}
      <SizeFields faults={faults} />
      <SeedField fault={faults.seed} />
      <div class="fields">
        <NumberField name="steps" label={t.value.steps} least={1} most={STEPS_MAX} fault={faults.steps}
          placeholder={t.value.stepsDefault} />
        <NumberField name="count" label={t.value.count} least={1} most={COUNT_MAX} fault={faults.count} />
        <PriorityField />
      </div>
      <div class="buttons">
        <button type="submit" class="main" title={t.value.promptHint}>{t.value.draw}</button>
        <PngButton />
      </div>
      <p class="hint" role="status">{filledBy.value}</p>
      <OfferButton />
    </form>
  );
}

/** What else can be done with the file that came last. */
function OfferButton() {
  const other = offer.value;
  if (!other) return null;
  const act = () => {
    offer.value = null;
    other.act();
    document.getElementById("prompt")?.focus();
  };
  return (
    <div class="buttons">
      <button type="button" class="quiet" onClick={act}>
        {other.what === "begin" ? t.value.beginFromIt : t.value.useParameters}
      </button>
    </div>
  );
}

function GuidanceFields({ faults }: { faults: Faults }) {
  return (
    <>
      <Field name="negative" label={t.value.negative} fault={faults.negative}>
        <textarea
          id="negative"
          rows={2}
          value={form.value.negative}
          aria-invalid={faults.negative !== undefined}
          aria-describedby="negative-fault"
          onInput={(event) => change({ negative: event.currentTarget.value })}
        />
      </Field>
      <NumberField name="guidance" label={t.value.guidance} least={0} most={GUIDANCE_MAX} step={0.5}
        placeholder={t.value.guidanceNone} fault={faults.guidance} />
    </>
  );
}

interface FieldProps {
  name: string;
  label: string;
  fault: string | undefined;
  children: ComponentChildren;
}

function Field({ name, label, fault, children }: FieldProps) {
  return (
    <div class="field">
      <label for={name}>{label}</label>
      {children}
      <span class="fault" id={`${name}-fault`} role={fault ? "alert" : undefined}>{fault ?? ""}</span>
    </div>
  );
}

interface NumberProps {
  name: "width" | "height" | "steps" | "count" | "guidance";
  label: string;
  least: number;
  most: number;
  step?: number;
  placeholder?: string;
  fault: string | undefined;
}

function NumberField({ name, label, least, most, step, placeholder, fault }: NumberProps) {
  return (
    <Field name={name} label={label} fault={fault}>
      <input
        id={name}
        type="number"
        inputMode={step && step < 1 ? "decimal" : "numeric"}
        min={least}
        max={most}
        step={step ?? 1}
        placeholder={placeholder ?? ""}
        value={form.value[name]}
        aria-invalid={fault !== undefined}
        aria-describedby={`${name}-fault`}
        onInput={(event) => change({ [name]: event.currentTarget.value })}
      />
    </Field>
  );
}

function SizeFields({ faults }: { faults: Faults }) {
  const { custom } = form.value;
  const from = source.value;
  const unsaid = from ? t.value.sizeOfSource : t.value.sizeDefault;
  const choose = (chosen: string) => {
    if (chosen === CUSTOM) {
      const { width, height } = form.value;
      return change({ custom: true, width: width || "512", height: height || "512" });
    }
    const [width = "", height = ""] = chosen.split("x");
    return change({ custom: false, width, height });
  };
  return (
    <>
      <Field name="size" label={t.value.size} fault={undefined}>
        <select
          id="size"
          value={custom ? CUSTOM : presetOf(form.value)}
          onChange={(event) => choose(event.currentTarget.value)}
        >
          {PRESETS.map((preset) => (
            <option key={preset} value={preset}>{preset.replace("x", " × ") || unsaid}</option>
          ))}
          <option value={CUSTOM}>{t.value.sizeCustom}</option>
        </select>
      </Field>
      {from && hasOtherShape(form.value, from) && (
        <p class="hint">{t.value.sizeDiffers(`${from.width} × ${from.height}`)}</p>
      )}
      {custom && (
        <div class="fields">
          <NumberField name="width" label={t.value.width} least={SIDE_MIN} most={SIDE_MAX} step={SIDE_MULTIPLE}
            fault={faults.width} />
          <NumberField name="height" label={t.value.height} least={SIDE_MIN} most={SIDE_MAX} step={SIDE_MULTIPLE}
            fault={faults.height} />
        </div>
      )}
    </>
  );
}

/** Sides that are multiples of 16 are never quite in a picture's proportion; beyond a twentieth it is seen. */
function hasOtherShape(sides: Form, from: Source): boolean {
  const shape = Number(sides.width) / Number(sides.height);
  return shape > 0 && Math.abs(Math.log((shape * from.height) / from.width)) > 0.05;
}

/** A seed that stands there is kept; none is one by chance for each job. */
function SeedField({ fault }: { fault: string | undefined }) {
  const isLocked = form.value.seed !== "";
  const lock = () => {
    // What was drawn last is what one most likely wants to keep.
    const last = rows.value.find((row) => row.job !== null)?.job?.seed;
    change({ seed: isLocked ? "" : (last ?? seedByChance()) });
  };
  return (
    <Field name="seed" label={t.value.seed} fault={fault}>
      <span class="joined">
        <input
          id="seed"
          inputMode="numeric"
          autocomplete="off"
          placeholder={t.value.seedChance}
          title={t.value.seedHint(isLocked)}
          value={form.value.seed}
          aria-invalid={fault !== undefined}
          aria-describedby="seed-fault"
          onInput={(event) => change({ seed: event.currentTarget.value })}
        />
        <button type="button" class="icon" aria-label={t.value.seedDice} title={t.value.seedDice}
          onClick={() => change({ seed: seedByChance() })}>
          <Icon name="dice" />
        </button>
        <button type="button" class="icon" aria-label={t.value.seedLock} title={t.value.seedHint(isLocked)}
          aria-pressed={isLocked} onClick={lock}>
          <Icon name={isLocked ? "locked" : "unlocked"} />
        </button>
      </span>
    </Field>
  );
}

function PriorityField() {
  const values = Array.from({ length: PRIORITY_MAX + 1 }, (_, index) => PRIORITY_MAX - index);
  return (
    <Field name="priority" label={t.value.priority} fault={undefined}>
      <select id="priority" title={t.value.priorityHint} value={form.value.priority || String(PRIORITY_DEFAULT)}
        onChange={(event) => change({ priority: event.currentTarget.value })}>
        {values.map((value) => <option key={value} value={String(value)}>{value}</option>)}
      </select>
    </Field>
  );
}

function PngButton() {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <input
        ref={input}
        type="file"
        accept="image/png"
        hidden
        data-for="parameters"
        onChange={(event) => {
          const file = event.currentTarget.files?.[0];
          if (file) void readPng(file);
          // The same file can be chosen again.
          event.currentTarget.value = "";
        }}
      />
      <button type="button" title={t.value.readPngHint} onClick={() => input.current?.click()}>{t.value.readPng}</button>
    </>
  );
}
